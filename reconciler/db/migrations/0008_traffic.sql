-- Counting traffic: which run of a node's Xray was read, what was counted of each node, and when quotas are renewed.

-- One run of a node's Xray. Xray has no boot id; see reconciler.plan.boots for how runs are told apart.
CREATE TABLE reconciler.node_boots (
  node_id         bigint NOT NULL REFERENCES reconciler.nodes,
  boot            bigint NOT NULL,
  uptime_seconds  bigint NOT NULL,          -- with the two below: as it was when last read
  allocated_bytes numeric NOT NULL,
  allocations     numeric NOT NULL,
  read_at         timestamptz NOT NULL,     -- by the database's clock
  host_read_at    timestamptz NOT NULL,     -- by the clock of the daemon that read
  PRIMARY KEY (node_id, boot)
);

CREATE TABLE reconciler.node_usage (
  node_id    bigint PRIMARY KEY REFERENCES reconciler.nodes,
  up_bytes   bigint NOT NULL CHECK (up_bytes >= 0),
  down_bytes bigint NOT NULL CHECK (down_bytes >= 0),
  read_at    timestamptz NOT NULL
);

-- Rows that change in place find room beside themselves.
ALTER TABLE reconciler.usage SET (fillfactor = 70);
ALTER TABLE reconciler.usage_checkpoints SET (fillfactor = 70);

-- So large that it is no limit, so small that adding to it stays far from the column's own end.
ALTER TABLE reconciler.subscriptions
  ADD CONSTRAINT subscriptions_traffic_limit_bound CHECK (traffic_limit_bytes <= 1152921504606846976);

-- The limit is for the whole term, or for each month, counted from the subscription's start.
ALTER TABLE reconciler.subscriptions ADD COLUMN traffic_renewal text CHECK (traffic_renewal = 'monthly');
CREATE INDEX subscriptions_traffic_renewal ON reconciler.subscriptions (id) WHERE traffic_renewal IS NOT NULL;

-- When the period after this one begins; null once it has, or when none will.
ALTER TABLE reconciler.usage_periods ADD COLUMN next_at timestamptz;
CREATE INDEX usage_periods_next ON reconciler.usage_periods (next_at, subscription_id) WHERE next_at IS NOT NULL;

COMMENT ON TABLE reconciler.node_boots IS 'Status: the runs of each node''s Xray that traffic was read of.';
COMMENT ON TABLE reconciler.node_usage IS 'Status: bytes counted on each node since it was registered; never reset.';

-- Rings for the keys of subscriptions whose traffic was used up, or renewed: the daemon may ring for nothing else.
CREATE FUNCTION reconciler.ring_subscriptions(changed bigint[]) RETURNS void
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  RETURN reconciler.ring_keys(ARRAY(
    SELECT id FROM reconciler.keys WHERE subscription_id = ANY (changed) AND revoked_at IS NULL));

-- Nobody deletes; this alone clears away what no reading can belong to any more.
CREATE FUNCTION reconciler.forget_boots(node bigint) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  forgotten bigint[] := ARRAY(
    SELECT boot FROM reconciler.node_boots WHERE node_id = node AND read_at < now() - interval '7 days'
    EXCEPT (SELECT boot FROM reconciler.node_boots WHERE node_id = node ORDER BY boot DESC LIMIT 2));
BEGIN
  DELETE FROM reconciler.usage_checkpoints WHERE node_id = node AND boot = ANY (forgotten);
  DELETE FROM reconciler.node_boots WHERE node_id = node AND boot = ANY (forgotten);
END $$;

REVOKE ALL ON FUNCTION reconciler.ring_subscriptions, reconciler.forget_boots FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reconciler.ring_subscriptions, reconciler.forget_boots TO reconciler_daemon;
GRANT SELECT ON reconciler.node_boots, reconciler.node_usage
  TO reconciler_daemon, reconciler_operator, reconciler_reader;
GRANT INSERT, UPDATE ON reconciler.node_boots, reconciler.node_usage TO reconciler_daemon;
GRANT INSERT (traffic_renewal), UPDATE (traffic_renewal) ON reconciler.subscriptions TO reconciler_writer;
