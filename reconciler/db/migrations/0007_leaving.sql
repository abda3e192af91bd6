-- A placement may be told to leave: the key is to be had elsewhere first. Until then it is live, and the node keeps the key.

ALTER TABLE reconciler.placements
  ADD COLUMN leaving_at    timestamptz,
  ADD COLUMN grace_seconds integer CHECK (grace_seconds BETWEEN 0 AND 2592000),   -- after another node has the key
  ADD CONSTRAINT placements_leaving CHECK ((leaving_at IS NULL) = (grace_seconds IS NULL));
DROP INDEX reconciler.placements_live;
CREATE UNIQUE INDEX placements_live ON reconciler.placements (key_id, node_id)
  INCLUDE (leaving_at) WHERE ended_at IS NULL;   -- which keys lack a node is read from the index alone
CREATE INDEX placements_leaving ON reconciler.placements (node_id, key_id)
  WHERE leaving_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX placements_left ON reconciler.placements (leaving_at) WHERE leaving_at IS NOT NULL;

ALTER TABLE reconciler.orders
  DROP CONSTRAINT orders_kind_check,
  ADD CONSTRAINT orders_kind_check CHECK (kind IN ('release', 'purge_orphans', 'empty', 'leave_behind'));

GRANT UPDATE (leaving_at, grace_seconds) ON reconciler.placements TO reconciler_daemon;

-- A key that is on no node but those that it leaves is to be placed again, so it rings at node 0 too.
CREATE OR REPLACE FUNCTION reconciler.placements_changed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  nodes bigint[];
  keys bigint[];
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT array_agg(node_id), array_agg(key_id) INTO nodes, keys FROM new_rows WHERE ended_at IS NULL;
  ELSE
    SELECT array_agg(node_id), array_agg(key_id) INTO nodes, keys
      FROM ((SELECT node_id, key_id, ended_at IS NULL, leaving_at IS NULL FROM new_rows
             EXCEPT SELECT node_id, key_id, ended_at IS NULL, leaving_at IS NULL FROM old_rows)
            UNION ALL
            (SELECT node_id, key_id, ended_at IS NULL, leaving_at IS NULL FROM old_rows
             EXCEPT SELECT node_id, key_id, ended_at IS NULL, leaving_at IS NULL FROM new_rows)) moved;
    SELECT nodes || array_agg(0::bigint), keys || array_agg(key) INTO nodes, keys
      FROM (SELECT DISTINCT unnest(keys) AS key) moved
     WHERE NOT EXISTS (SELECT FROM reconciler.placements p
                        WHERE p.key_id = key AND p.ended_at IS NULL AND p.leaving_at IS NULL);
  END IF;
  PERFORM reconciler.ring_pairs(nodes, keys);
  RETURN NULL;
END $$;

CREATE OR REPLACE VIEW reconciler.key_state AS
SELECT k.id AS key_id, k.subscription_id, s.user_id,
       n.name AS node, n.link_template, pl.placed_at,
       CASE WHEN p.account_digest = reconciler.account_digest(k.credential, i.inbounds) THEN p.made_at END AS usable_since,
       p.promised_until,
       coalesce(g.up_bytes, 0) AS up_bytes, coalesce(g.down_bytes, 0) AS down_bytes,
       k.revoked_at IS NOT NULL AS revoked,
       pl.leaving_at
  FROM reconciler.keys k
  JOIN reconciler.subscriptions s ON s.id = k.subscription_id
  LEFT JOIN reconciler.placements pl ON pl.key_id = k.id AND pl.ended_at IS NULL
  LEFT JOIN reconciler.nodes n ON n.id = pl.node_id
  LEFT JOIN reconciler.promises p ON p.key_id = k.id AND p.node_id = pl.node_id AND p.ended_at IS NULL
  LEFT JOIN reconciler.usage g ON g.key_id = k.id
  LEFT JOIN LATERAL (
    SELECT coalesce(string_agg(concat_ws(E'\x1f', tag, protocol, flow), E'\x1e' ORDER BY tag COLLATE "C"), '') AS inbounds
      FROM reconciler.inbounds WHERE node_id = pl.node_id AND ended_at IS NULL) i ON true;
