-- What people and the bot read. A credential is in neither: who renders a link reads it from its key.

CREATE VIEW reconciler.subscription_state AS
SELECT u.id AS user_id, u.name AS user_name, u.telegram_id,
       s.id AS subscription_id, s.plan, s.starts_at, s.expires_at, s.traffic_limit_bytes, used.used_bytes, s.revoked_at,
       CASE WHEN s.id IS NULL THEN 'no_subscription'
            WHEN s.revoked_at IS NOT NULL THEN 'revoked'
            WHEN s.expires_at <= now() THEN 'expired'
            WHEN used.used_bytes >= s.traffic_limit_bytes THEN 'over_quota'
            WHEN s.expires_at <= now() + interval '7 days' THEN 'expiring_in_7d'
            ELSE 'active' END AS bucket
  FROM reconciler.users u
  LEFT JOIN reconciler.subscriptions s ON s.user_id = u.id
  LEFT JOIN LATERAL (
    SELECT coalesce(sum(g.up_bytes + g.down_bytes), 0)::bigint
           - coalesce((SELECT p.base_bytes FROM reconciler.usage_periods p
                        WHERE p.subscription_id = s.id AND p.started_at <= now()
                        ORDER BY p.started_at DESC LIMIT 1), 0) AS used_bytes
      FROM reconciler.keys k JOIN reconciler.usage g ON g.key_id = k.id
     WHERE k.subscription_id = s.id) used ON s.id IS NOT NULL;

-- usable_since: since when the node carries the key's present account, as far as it has told us.
CREATE VIEW reconciler.key_state AS
SELECT k.id AS key_id, k.subscription_id, s.user_id,
       n.name AS node, n.link_template, pl.placed_at,
       CASE WHEN p.account_digest = reconciler.account_digest(k.credential, i.inbounds) THEN p.made_at END AS usable_since,
       p.promised_until,
       coalesce(g.up_bytes, 0) AS up_bytes, coalesce(g.down_bytes, 0) AS down_bytes,
       k.revoked_at IS NOT NULL AS revoked
  FROM reconciler.keys k
  JOIN reconciler.subscriptions s ON s.id = k.subscription_id
  LEFT JOIN reconciler.placements pl ON pl.key_id = k.id AND pl.ended_at IS NULL
  LEFT JOIN reconciler.nodes n ON n.id = pl.node_id
  LEFT JOIN reconciler.promises p ON p.key_id = k.id AND p.node_id = pl.node_id AND p.ended_at IS NULL
  LEFT JOIN reconciler.usage g ON g.key_id = k.id
  LEFT JOIN LATERAL (
    SELECT coalesce(string_agg(concat_ws(E'\x1f', tag, protocol, flow), E'\x1e' ORDER BY tag COLLATE "C"), '') AS inbounds
      FROM reconciler.inbounds WHERE node_id = pl.node_id AND ended_at IS NULL) i ON true;

COMMENT ON VIEW reconciler.subscription_state IS 'One row per user and subscription, with the bucket it falls in.';
COMMENT ON VIEW reconciler.key_state IS 'One row per key and node: where it is, since when usable, promised until when.';
