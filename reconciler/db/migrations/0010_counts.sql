-- How many keys are placed on each node, so that placing one more need not count them all.
--
-- The sum over a node's rows is what counts. There is more than one where writers met: none waits until another has
-- committed, because one that holds its transaction open would hold up every new key.

CREATE TABLE reconciler.placement_counts (
  node_id bigint NOT NULL REFERENCES reconciler.nodes,
  live    integer NOT NULL
);
CREATE INDEX placement_counts_node ON reconciler.placement_counts (node_id);

CREATE FUNCTION reconciler.count_placements(node bigint, more bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  found_at tid;
BEGIN
  -- A stricter transaction may not write a row that has changed since it began, but may always add one.
  IF current_setting('transaction_isolation') = 'read committed' THEN
    SELECT ctid INTO found_at FROM reconciler.placement_counts WHERE node_id = node LIMIT 1 FOR UPDATE SKIP LOCKED;
  END IF;
  IF found_at IS NULL THEN
    INSERT INTO reconciler.placement_counts (node_id, live) VALUES (node, more);
  ELSE
    UPDATE reconciler.placement_counts SET live = live + more WHERE ctid = found_at;
  END IF;
END $$;

CREATE FUNCTION reconciler.placements_counted() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM reconciler.count_placements(node_id, count(*)) FROM new_rows WHERE ended_at IS NULL GROUP BY node_id;
  ELSE
    PERFORM reconciler.count_placements(node_id, sum(more))
       FROM (SELECT node_id, 1 AS more FROM new_rows WHERE ended_at IS NULL
             UNION ALL
             SELECT node_id, -1 FROM old_rows WHERE ended_at IS NULL) changed
      GROUP BY node_id HAVING sum(more) <> 0;
  END IF;
  RETURN NULL;
END $$;

-- The triggers come first: they keep writers out until the rows that are there have been counted.
CREATE TRIGGER count_new AFTER INSERT ON reconciler.placements REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.placements_counted();
CREATE TRIGGER count AFTER UPDATE ON reconciler.placements REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.placements_counted();

INSERT INTO reconciler.placement_counts (node_id, live)
SELECT node_id, count(*) FROM reconciler.placements WHERE ended_at IS NULL GROUP BY node_id;

-- For whoever has loaded rows with triggers off: mends the counts, and returns by how many keys they were wrong. Nobody
-- waits for it, because a row and its count become visible at once: what one statement sees differs by that alone.
CREATE FUNCTION reconciler.recount_placements() RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wrong bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'recount_placements runs at READ COMMITTED only: another one must have been seen after the lock';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('reconciler recount', 0));
  WITH mended AS (
    INSERT INTO reconciler.placement_counts (node_id, live)
    SELECT node_id, sum(keys)
      FROM (SELECT node_id, count(*) AS keys FROM reconciler.placements WHERE ended_at IS NULL GROUP BY node_id
            UNION ALL
            SELECT node_id, -sum(live) FROM reconciler.placement_counts GROUP BY node_id) counted
     GROUP BY node_id HAVING sum(keys) <> 0
    RETURNING live)
  SELECT coalesce(sum(abs(live)), 0) INTO wrong FROM mended;
  RETURN wrong;
END $$;

REVOKE ALL ON FUNCTION reconciler.count_placements, reconciler.placements_counted, reconciler.recount_placements
  FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reconciler.recount_placements TO reconciler_operator;
GRANT SELECT ON reconciler.placement_counts TO reconciler_daemon, reconciler_operator, reconciler_reader;

-- Places keys where the caller chose, each only as long as that still holds under the locks of the pools, and returns
-- those that were placed. It has to run at READ COMMITTED, where what is read after a lock is no older than the lock.
--
-- The commit does not wait for the disk. The server may lose it in a crash, with all that came after it and nothing
-- that came before; then the keys are placed again, from the same counts, and so on the same nodes. A promise, which
-- does wait, never outlives its placement.
CREATE FUNCTION reconciler.place_keys(chosen_keys bigint[], chosen_nodes bigint[], why text)
  RETURNS TABLE (placed_key bigint, placed_node bigint)
  LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  keys bigint[];
  nodes bigint[];
  stays boolean;   -- a node that a key leaves may be the one that is chosen for it
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  PERFORM pg_advisory_xact_lock(hashtextextended('reconciler pool ' || pool, 0))
     FROM (SELECT DISTINCT pool FROM reconciler.nodes WHERE id = ANY (chosen_nodes) ORDER BY pool OFFSET 0) pools;
  SELECT array_agg(k.id), array_agg(n.id), bool_or(l.leaving) INTO keys, nodes, stays
    FROM (SELECT key, node, row_number() OVER (PARTITION BY node ORDER BY key) AS place
            FROM unnest(chosen_keys, chosen_nodes) AS pair (key, node)) chosen
    JOIN reconciler.nodes n ON n.id = chosen.node AND n.state = 'active'
    JOIN reconciler.keys k ON k.id = chosen.key AND k.pool = n.pool AND k.revoked_at IS NULL
    JOIN reconciler.subscriptions s ON s.id = k.subscription_id
     AND s.revoked_at IS NULL AND s.starts_at <= now() AND now() < s.expires_at
   CROSS JOIN LATERAL (
     SELECT coalesce(bool_or(o.leaving_at IS NOT NULL AND o.node_id = n.id), false) AS leaving,
            coalesce(bool_or(CASE k.spread WHEN 'one' THEN o.leaving_at IS NULL ELSE o.node_id = n.id END), false) AS there
       FROM reconciler.placements o WHERE o.key_id = k.id AND o.ended_at IS NULL) l
   WHERE NOT l.there
     AND (n.capacity IS NULL OR n.capacity >= chosen.place
            + (SELECT coalesce(sum(c.live), 0) FROM reconciler.placement_counts c WHERE c.node_id = n.id));
  IF stays THEN
    UPDATE reconciler.placements p SET leaving_at = NULL, grace_seconds = NULL
      FROM unnest(keys, nodes) AS pair (key, node)
     WHERE p.key_id = pair.key AND p.node_id = pair.node AND p.ended_at IS NULL;
  END IF;
  IF keys IS NOT NULL THEN
    INSERT INTO reconciler.placements (key_id, node_id, reason)
    SELECT key, node, why FROM unnest(keys, nodes) AS pair (key, node) ORDER BY key, node
        ON CONFLICT DO NOTHING;
  END IF;
  RETURN QUERY SELECT * FROM unnest(keys, nodes);
END $$;

-- The same for keys that rang, by a choice that was made before they did: the n-th key of a pool goes to the node that
-- stands n-th among the turns of that pool.
CREATE FUNCTION reconciler.place_next(rung bigint[], turn_pools text[], turn_nodes bigint[], why text)
  RETURNS TABLE (placed_key bigint, placed_node bigint)
  LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  keys bigint[];
  nodes bigint[];
BEGIN
  SELECT array_agg(k.id), array_agg(t.node) INTO keys, nodes
    FROM (SELECT id, pool, row_number() OVER (PARTITION BY pool ORDER BY id) AS place
            FROM reconciler.keys
           WHERE id = ANY (rung) AND spread = 'one' AND NOT EXISTS (
             SELECT FROM reconciler.placements p
              WHERE p.key_id = keys.id AND p.ended_at IS NULL AND p.leaving_at IS NULL)) k
    JOIN (SELECT pool, node, row_number() OVER (PARTITION BY pool ORDER BY turn) AS place
            FROM unnest(turn_pools, turn_nodes) WITH ORDINALITY AS turns (pool, node, turn)) t USING (pool, place);
  RETURN QUERY SELECT * FROM reconciler.place_keys(keys, nodes, why) WHERE keys IS NOT NULL;
END $$;

REVOKE ALL ON FUNCTION reconciler.place_keys, reconciler.place_next FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reconciler.place_keys, reconciler.place_next TO reconciler_daemon;
