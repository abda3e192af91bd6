-- Who may do what. Login roles are members of these; nobody deletes, and only a superuser can.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA reconciler FROM PUBLIC;
GRANT USAGE ON SCHEMA reconciler TO reconciler_daemon, reconciler_operator, reconciler_reader, reconciler_writer;
GRANT SELECT ON reconciler.migrations, reconciler.subscription_state, reconciler.key_state
  TO reconciler_daemon, reconciler_operator, reconciler_reader, reconciler_writer;
GRANT EXECUTE ON FUNCTION reconciler.account_digest
  TO reconciler_daemon, reconciler_operator, reconciler_reader, reconciler_writer;

-- ---------------------------------------------------------------- daemon: reads what should be, writes what is

GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reconciler_daemon;
GRANT EXECUTE ON FUNCTION reconciler.inbounds_text, reconciler.used_bytes TO reconciler_daemon;
GRANT INSERT, UPDATE ON reconciler.node_status, reconciler.promises, reconciler.leases, reconciler.usage,
  reconciler.usage_periods, reconciler.usage_checkpoints TO reconciler_daemon;
GRANT INSERT (key_id, node_id, reason), UPDATE (ended_at) ON reconciler.placements TO reconciler_daemon;
GRANT UPDATE (done_at) ON reconciler.orders TO reconciler_daemon;
GRANT UPDATE (beat) ON reconciler.source TO reconciler_daemon;

-- ---------------------------------------------------------------- writer: the bot, and other shops

GRANT SELECT ON reconciler.users, reconciler.subscriptions, reconciler.keys, reconciler.grants TO reconciler_writer;
GRANT INSERT (telegram_id, name), UPDATE (telegram_id, name) ON reconciler.users TO reconciler_writer;
GRANT INSERT (user_id, plan, starts_at, expires_at, traffic_limit_bytes),
      UPDATE (plan, starts_at, expires_at, traffic_limit_bytes, revoked_at)
  ON reconciler.subscriptions TO reconciler_writer;
GRANT INSERT (subscription_id, credential, pool, spread), UPDATE (credential, pool, spread, revoked_at)
  ON reconciler.keys TO reconciler_writer;
GRANT INSERT (subscription_id, kind, days, traffic_bytes, amount, currency, actor, external_id, resulting_expires_at, note)
  ON reconciler.grants TO reconciler_writer;
GRANT EXECUTE ON FUNCTION reconciler.masked TO reconciler_writer;  -- the unique index of keys calls it

-- ---------------------------------------------------------------- operator: all of desired, and orders

GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reconciler_operator;
GRANT EXECUTE ON FUNCTION reconciler.masked, reconciler.inbounds_text, reconciler.used_bytes TO reconciler_operator;
GRANT INSERT, UPDATE ON reconciler.users, reconciler.subscriptions, reconciler.keys, reconciler.nodes,
  reconciler.inbounds, reconciler.placements TO reconciler_operator;
GRANT INSERT ON reconciler.grants, reconciler.orders TO reconciler_operator;

-- ---------------------------------------------------------------- reader: everything but what opens a door

GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reconciler_reader;
REVOKE SELECT ON reconciler.keys FROM reconciler_reader;
GRANT SELECT (id, subscription_id, pool, spread, revoked_at, created_at, updated_at)
  ON reconciler.keys TO reconciler_reader;
GRANT EXECUTE ON FUNCTION reconciler.inbounds_text, reconciler.used_bytes TO reconciler_reader;
