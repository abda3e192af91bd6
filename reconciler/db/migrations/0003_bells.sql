-- NOTIFY reconciler: says where to look, never what to do. A lost bell costs time, never correctness.
--
--   1 k 12:345,12:346   node:key pairs, at most 100; node 0 means a key that no node carries yet
--   1 n 12,13           nodes, at most 500, where the pairs are more; 0 as above
--   1 *                 everything, where the nodes are more, or keys beyond 10,000 in one statement
--
-- A statement rings once, and only for what changes which key belongs where. The functions run with their owner's
-- rights, because who extends a subscription may not see where its keys are placed. Old and new rows are compared by
-- EXCEPT, not by a join: plans are kept for the session, and a loop join that suited one row would not suit 100,000.

CREATE FUNCTION reconciler.ring_nodes(nodes bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  payload text;
BEGIN
  SELECT '1 n ' || string_agg(node::text, ',' ORDER BY node) INTO payload
    FROM (SELECT DISTINCT unnest(nodes) AS node) found
  HAVING count(*) <= 500;
  IF payload IS NULL AND cardinality(nodes) > 0 OR length(payload) >= 8000 THEN
    payload := '1 *';
  END IF;
  PERFORM pg_notify('reconciler', payload) WHERE payload IS NOT NULL;
END $$;

CREATE FUNCTION reconciler.ring_pairs(nodes bigint[], keys bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  payload text;
BEGIN
  SELECT '1 k ' || string_agg(node || ':' || key, ',' ORDER BY node, key) INTO payload
    FROM (SELECT DISTINCT node, key FROM unnest(nodes, keys) AS pair (node, key)) found
  HAVING count(*) BETWEEN 1 AND 100;
  IF payload IS NULL THEN
    PERFORM reconciler.ring_nodes(nodes);
  ELSE
    PERFORM pg_notify('reconciler', payload);
  END IF;
END $$;

-- Rings wherever a key is placed or promised.
CREATE FUNCTION reconciler.ring_keys(changed bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF cardinality(changed) > 10000 THEN
    PERFORM pg_notify('reconciler', '1 *');
  ELSIF cardinality(changed) > 0 THEN
    PERFORM reconciler.ring_pairs(array_agg(coalesce(node_id, 0)), array_agg(key))
       FROM unnest(changed) AS key
       LEFT JOIN LATERAL (SELECT node_id FROM reconciler.placements WHERE key_id = key AND ended_at IS NULL
                          UNION ALL
                          SELECT node_id FROM reconciler.promises WHERE key_id = key AND ended_at IS NULL) carrier ON true;
  END IF;
END $$;

-- ---------------------------------------------------------------- subscriptions and keys

CREATE FUNCTION reconciler.subscriptions_changed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  changed bigint[] := ARRAY(
    SELECT id FROM (SELECT id, starts_at, expires_at, traffic_limit_bytes, revoked_at FROM new_rows
                    EXCEPT SELECT id, starts_at, expires_at, traffic_limit_bytes, revoked_at FROM old_rows) changed
     LIMIT 10001);
BEGIN
  IF cardinality(changed) > 10000 THEN
    PERFORM pg_notify('reconciler', '1 *');
  ELSE
    PERFORM reconciler.ring_keys(ARRAY(
      SELECT id FROM reconciler.keys WHERE subscription_id = ANY (changed) AND revoked_at IS NULL));
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION reconciler.keys_changed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM reconciler.ring_keys(ARRAY(SELECT id FROM new_rows WHERE revoked_at IS NULL));
  ELSE
    PERFORM reconciler.ring_keys(ARRAY(
      SELECT id FROM (SELECT id, subscription_id, credential, pool, spread, revoked_at FROM new_rows
                      EXCEPT SELECT id, subscription_id, credential, pool, spread, revoked_at FROM old_rows) changed));
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER ring AFTER UPDATE ON reconciler.subscriptions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.subscriptions_changed();
CREATE TRIGGER ring_new AFTER INSERT ON reconciler.keys REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.keys_changed();
CREATE TRIGGER ring AFTER UPDATE ON reconciler.keys REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.keys_changed();

-- ---------------------------------------------------------------- placements: the old node and the new one

-- A key whose last placement ended is to be placed again, so it rings at node 0 too.
CREATE FUNCTION reconciler.placements_changed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  nodes bigint[];
  keys bigint[];
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT array_agg(node_id), array_agg(key_id) INTO nodes, keys FROM new_rows WHERE ended_at IS NULL;
  ELSE
    SELECT array_agg(node_id), array_agg(key_id) INTO nodes, keys
      FROM ((SELECT node_id, key_id, ended_at IS NULL FROM new_rows
             EXCEPT SELECT node_id, key_id, ended_at IS NULL FROM old_rows)
            UNION ALL
            (SELECT node_id, key_id, ended_at IS NULL FROM old_rows
             EXCEPT SELECT node_id, key_id, ended_at IS NULL FROM new_rows)) moved;
    SELECT nodes || array_agg(0::bigint), keys || array_agg(key) INTO nodes, keys
      FROM (SELECT DISTINCT unnest(keys) AS key) moved
     WHERE NOT EXISTS (SELECT FROM reconciler.placements p WHERE p.key_id = key AND p.ended_at IS NULL);
  END IF;
  PERFORM reconciler.ring_pairs(nodes, keys);
  RETURN NULL;
END $$;

CREATE TRIGGER ring_new AFTER INSERT ON reconciler.placements REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.placements_changed();
CREATE TRIGGER ring AFTER UPDATE ON reconciler.placements REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.placements_changed();

-- ---------------------------------------------------------------- promises: the old node of a move may let go

-- Only keys that live on one node move; of a key spread over many, each promise would ring all the others.
CREATE FUNCTION reconciler.promises_changed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  confirmed_nodes bigint[];
  confirmed_keys bigint[];
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT array_agg(node_id), array_agg(key_id) INTO confirmed_nodes, confirmed_keys
      FROM new_rows WHERE ended_at IS NULL;
  ELSE
    SELECT array_agg(node_id), array_agg(key_id) INTO confirmed_nodes, confirmed_keys
      FROM (SELECT node_id, key_id, account_digest FROM new_rows WHERE ended_at IS NULL
            EXCEPT SELECT node_id, key_id, account_digest FROM old_rows WHERE ended_at IS NULL) changed;
  END IF;
  IF confirmed_nodes IS NOT NULL THEN
    PERFORM reconciler.ring_pairs(array_agg(carrier.node_id), array_agg(k.id))
       FROM unnest(confirmed_nodes, confirmed_keys) AS confirmed (node_id, key_id)
       JOIN reconciler.keys k ON k.id = confirmed.key_id AND k.spread = 'one'
       JOIN LATERAL (SELECT node_id FROM reconciler.placements WHERE key_id = k.id AND ended_at IS NULL
                     UNION ALL
                     SELECT node_id FROM reconciler.promises WHERE key_id = k.id AND ended_at IS NULL) carrier
         ON carrier.node_id <> confirmed.node_id;
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER ring_new AFTER INSERT ON reconciler.promises REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.promises_changed();
CREATE TRIGGER ring AFTER UPDATE ON reconciler.promises REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.promises_changed();

-- ---------------------------------------------------------------- nodes, their inbounds, orders: the whole node

CREATE FUNCTION reconciler.nodes_changed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM reconciler.ring_nodes(ARRAY(SELECT id FROM new_rows));
  ELSE
    PERFORM reconciler.ring_nodes(ARRAY(
      SELECT id FROM (SELECT id, name, api, pool, capacity, state FROM new_rows
                      EXCEPT SELECT id, name, api, pool, capacity, state FROM old_rows) changed));
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION reconciler.inbounds_changed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM reconciler.ring_nodes(ARRAY(SELECT node_id FROM new_rows));
  ELSE
    PERFORM reconciler.ring_nodes(ARRAY(
      SELECT node_id FROM ((SELECT node_id, tag, protocol, flow, ended_at IS NULL FROM new_rows
                            EXCEPT SELECT node_id, tag, protocol, flow, ended_at IS NULL FROM old_rows)
                           UNION ALL
                           (SELECT node_id, tag, protocol, flow, ended_at IS NULL FROM old_rows
                            EXCEPT SELECT node_id, tag, protocol, flow, ended_at IS NULL FROM new_rows)) changed));
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION reconciler.orders_given() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM new_rows WHERE node_id IS NULL) THEN
    PERFORM pg_notify('reconciler', '1 *');
  ELSE
    PERFORM reconciler.ring_nodes(ARRAY(SELECT node_id FROM new_rows));
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER ring_new AFTER INSERT ON reconciler.nodes REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.nodes_changed();
CREATE TRIGGER ring AFTER UPDATE ON reconciler.nodes REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.nodes_changed();
CREATE TRIGGER ring_new AFTER INSERT ON reconciler.inbounds REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.inbounds_changed();
CREATE TRIGGER ring AFTER UPDATE ON reconciler.inbounds REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.inbounds_changed();
CREATE TRIGGER ring_new AFTER INSERT ON reconciler.orders REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.orders_given();
