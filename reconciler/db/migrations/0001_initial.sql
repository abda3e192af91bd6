-- The tables. What each may refuse, rings for, shows and grants stands in the files that follow.

CREATE SCHEMA reconciler;

CREATE TABLE reconciler.migrations (
  number     integer PRIMARY KEY,
  name       text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------- functions the tables need

-- Xray looks a user up by the UUID without its third group: two UUIDs that differ only there lock each other out.
CREATE FUNCTION reconciler.masked(credential uuid) RETURNS uuid
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  RETURN overlay(credential::text PLACING '0000' FROM 15 FOR 4)::uuid;

CREATE FUNCTION reconciler.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := clock_timestamp();
  RETURN NEW;
END $$;

CREATE FUNCTION reconciler.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% on %.% is refused: %', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
    USING ERRCODE = 'raise_exception';
END $$;

-- ---------------------------------------------------------------- desired state: rows are ended, never deleted

CREATE TABLE reconciler.users (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  telegram_id bigint UNIQUE,
  name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  role        text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'manager', 'admin')),
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now()
);

-- The only place where an expiry is stored; keys carry none.
CREATE TABLE reconciler.subscriptions (
  id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id             bigint NOT NULL REFERENCES reconciler.users,
  plan                text NOT NULL DEFAULT '' CHECK (length(plan) <= 100),
  starts_at           timestamptz NOT NULL DEFAULT now() CHECK (starts_at >= '2000-01-01Z'),
  expires_at          timestamptz NOT NULL CHECK (expires_at < '2100-01-01Z'),
  traffic_limit_bytes bigint CHECK (traffic_limit_bytes >= 0),
  revoked_at          timestamptz,
  created_at          timestamptz NOT NULL DEFAULT now(),
  updated_at          timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT subscriptions_end_after_start CHECK (expires_at > starts_at)
);
CREATE INDEX subscriptions_user ON reconciler.subscriptions (user_id);
CREATE INDEX subscriptions_expiry ON reconciler.subscriptions (expires_at);
CREATE INDEX subscriptions_start ON reconciler.subscriptions (starts_at);

CREATE TABLE reconciler.keys (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscription_id bigint NOT NULL REFERENCES reconciler.subscriptions,
  credential      uuid NOT NULL,
  pool            text NOT NULL DEFAULT 'default' CHECK (pool ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  spread          text NOT NULL DEFAULT 'one' CHECK (spread IN ('one', 'all')),
  revoked_at      timestamptz,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX keys_credential_masked ON reconciler.keys (reconciler.masked(credential));
CREATE INDEX keys_subscription ON reconciler.keys (subscription_id);

-- Append-only history. external_id makes a repeated payment a no-op that returns the first result.
CREATE TABLE reconciler.grants (
  id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscription_id      bigint NOT NULL REFERENCES reconciler.subscriptions,
  kind                 text NOT NULL CHECK (kind IN ('payment', 'trial', 'gift', 'extension', 'refund', 'voucher', 'import')),
  days                 integer,
  traffic_bytes        bigint,
  amount               bigint,     -- in the currency's minor unit
  currency             text CHECK (currency ~ '^[A-Z]{3}$'),
  actor                text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  external_id          text UNIQUE CHECK (length(external_id) BETWEEN 1 AND 200),
  resulting_expires_at timestamptz NOT NULL,
  note                 text NOT NULL DEFAULT '' CHECK (length(note) <= 2000),
  created_at           timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT grants_amount_has_currency CHECK ((amount IS NULL) = (currency IS NULL))
);
CREATE INDEX grants_subscription ON reconciler.grants (subscription_id);

CREATE TABLE reconciler.nodes (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name          text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  api           text NOT NULL UNIQUE
                CHECK (api ~ '^(tls:)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$' OR api ~ '^unix:/.+'),
  pool          text NOT NULL DEFAULT 'default' CHECK (pool ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  capacity      integer CHECK (capacity >= 0),      -- keys; null is unlimited
  state         text NOT NULL DEFAULT 'observed' CHECK (state IN ('observed', 'active', 'draining', 'disabled')),
  link_template text CHECK (position('{uuid}' IN link_template) > 0),
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE reconciler.inbounds (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  node_id  bigint NOT NULL REFERENCES reconciler.nodes,
  tag      text NOT NULL CHECK (length(tag) BETWEEN 1 AND 200),
  protocol text NOT NULL CHECK (protocol IN ('vless', 'vmess', 'trojan')),
  flow     text NOT NULL DEFAULT '',
  ended_at timestamptz,
  CONSTRAINT inbounds_flow CHECK (flow = '' OR (protocol = 'vless' AND flow = 'xtls-rprx-vision'))
);
CREATE UNIQUE INDEX inbounds_live_tag ON reconciler.inbounds (node_id, tag) WHERE ended_at IS NULL;

-- Which key belongs on which node. A move is two live rows for a while.
CREATE TABLE reconciler.placements (
  id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key_id    bigint NOT NULL REFERENCES reconciler.keys,
  node_id   bigint NOT NULL REFERENCES reconciler.nodes,
  reason    text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
  placed_at timestamptz NOT NULL DEFAULT now(),
  ended_at  timestamptz
);
CREATE UNIQUE INDEX placements_live ON reconciler.placements (key_id, node_id) WHERE ended_at IS NULL;
CREATE INDEX placements_live_node ON reconciler.placements (node_id, key_id)
  INCLUDE (placed_at) WHERE ended_at IS NULL;   -- all that a pass over the node reads, without the table
CREATE INDEX placements_ended ON reconciler.placements (key_id, node_id) WHERE ended_at IS NOT NULL;

-- An operator's word to the daemon: exactly these keys, and no others that may have joined them since.
CREATE TABLE reconciler.orders (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind        text NOT NULL CHECK (kind IN ('release', 'purge_orphans', 'empty')),
  node_id     bigint REFERENCES reconciler.nodes,
  key_ids     bigint[] NOT NULL,   -- ascending
  digest      bytea NOT NULL,      -- of key_ids, see reconciler.key_set_digest
  count       integer NOT NULL,
  actor       text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
  created_at  timestamptz NOT NULL DEFAULT now(),
  valid_until timestamptz NOT NULL,
  done_at     timestamptz,
  CONSTRAINT orders_count CHECK (count = cardinality(key_ids)),
  CONSTRAINT orders_digest CHECK (digest = sha256(convert_to(array_to_string(key_ids, ','), 'UTF8')))
);
CREATE INDEX orders_open ON reconciler.orders (node_id) WHERE done_at IS NULL;

-- ---------------------------------------------------------------- status: written by the daemon only

CREATE TABLE reconciler.node_status (
  node_id           bigint PRIMARY KEY REFERENCES reconciler.nodes,
  holder            text NOT NULL,
  outcome           text NOT NULL
                    CHECK (outcome IN ('failed', 'unreachable', 'rejected', 'held', 'changed', 'converged')),
  active_users      integer NOT NULL DEFAULT 0,
  desired_users     integer NOT NULL DEFAULT 0,
  foreign_users     integer NOT NULL DEFAULT 0,
  orphan_users      integer NOT NULL DEFAULT 0,
  held_removals     integer NOT NULL DEFAULT 0,
  boot_at           timestamptz,
  last_attempt_at   timestamptz NOT NULL,
  last_full_at      timestamptz,
  last_converged_at timestamptz,
  error             text
);

-- What we owe a key on a node: this account, until when. One live row per key and node, ended ones are history.
-- A promise until 'infinity' stands for a key that we found there and know no promise of.
CREATE TABLE reconciler.promises (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key_id         bigint NOT NULL REFERENCES reconciler.keys,
  node_id        bigint NOT NULL REFERENCES reconciler.nodes,
  account_digest bytea NOT NULL,   -- see reconciler.account_digest; empty when not known
  promised_until timestamptz NOT NULL,
  made_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at       timestamptz,
  ended_reason   text,
  early          text CHECK (early IN ('early', 'over_quota')),   -- the budget that breaking it was spent from
  early_at       timestamptz,                                     -- written before the step, so that no crash hides it
  CONSTRAINT promises_early CHECK ((early IS NULL) = (early_at IS NULL)),
  CONSTRAINT promises_ended CHECK (ended_at IS NULL OR ended_reason IS NOT NULL)
);
CREATE UNIQUE INDEX promises_live ON reconciler.promises (key_id, node_id) WHERE ended_at IS NULL;
CREATE INDEX promises_live_node ON reconciler.promises (node_id, key_id)
  INCLUDE (account_digest, promised_until, early_at) WHERE ended_at IS NULL;   -- as with placements
CREATE INDEX promises_ended ON reconciler.promises (key_id, node_id) WHERE ended_at IS NOT NULL;
CREATE INDEX promises_early ON reconciler.promises (node_id, early_at) WHERE early IS NOT NULL;

CREATE TABLE reconciler.leases (
  node_id    bigint PRIMARY KEY REFERENCES reconciler.nodes,
  holder     text NOT NULL,
  epoch      bigint NOT NULL,
  expires_at timestamptz NOT NULL
);

CREATE TABLE reconciler.usage (
  key_id     bigint PRIMARY KEY REFERENCES reconciler.keys,
  up_bytes   bigint NOT NULL DEFAULT 0 CHECK (up_bytes >= 0),
  down_bytes bigint NOT NULL DEFAULT 0 CHECK (down_bytes >= 0),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- A renewal opens a period: what counts against the limit is the usage since base_bytes. Counters are never reset.
CREATE TABLE reconciler.usage_periods (
  subscription_id bigint NOT NULL REFERENCES reconciler.subscriptions,
  started_at      timestamptz NOT NULL,
  base_bytes      bigint NOT NULL CHECK (base_bytes >= 0),
  PRIMARY KEY (subscription_id, started_at)
);

CREATE TABLE reconciler.usage_checkpoints (
  node_id    bigint NOT NULL REFERENCES reconciler.nodes,
  boot       bigint NOT NULL,
  key_id     bigint NOT NULL,
  direction  text NOT NULL CHECK (direction IN ('up', 'down')),
  last_bytes bigint NOT NULL CHECK (last_bytes >= 0),
  PRIMARY KEY (node_id, boot, key_id, direction)
);

-- One row: our mark on every node, for ever, and what tells this database from its copies.
CREATE TABLE reconciler.source (
  single     boolean PRIMARY KEY DEFAULT true CHECK (single),
  owner      text NOT NULL CHECK (owner ~ '^[a-z0-9-]{1,32}$'),
  identity   uuid NOT NULL DEFAULT gen_random_uuid(),
  beat       bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------- what the rows say

-- The account of a key on a node, in 16 bytes: its credential and every live inbound's tag, protocol and flow.
CREATE FUNCTION reconciler.inbounds_text(node bigint) RETURNS text
  LANGUAGE sql STABLE
  RETURN (SELECT coalesce(string_agg(concat_ws(E'\x1f', tag, protocol, flow), E'\x1e' ORDER BY tag COLLATE "C"), '')
            FROM reconciler.inbounds WHERE node_id = node AND ended_at IS NULL);

CREATE FUNCTION reconciler.account_digest(credential uuid, inbounds text) RETURNS bytea
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  RETURN substring(sha256(uuid_send(credential) || convert_to(inbounds, 'UTF8')) FROM 1 FOR 16);

-- Bytes used by all keys of a subscription, ended ones included, since its current period began.
CREATE FUNCTION reconciler.used_bytes(subscription bigint) RETURNS bigint
  LANGUAGE sql STABLE
  RETURN (SELECT coalesce(sum(u.up_bytes + u.down_bytes), 0)::bigint
            FROM reconciler.keys k JOIN reconciler.usage u ON u.key_id = k.id
           WHERE k.subscription_id = subscription)
       - coalesce((SELECT base_bytes FROM reconciler.usage_periods
                    WHERE subscription_id = subscription AND started_at <= now()
                    ORDER BY started_at DESC LIMIT 1), 0);
