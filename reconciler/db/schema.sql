-- What all migrations add up to: read this one, apply the others. Written by `make schema`; never edited.
-- The roles are made by roles.sql, the rows of reconciler.source and reconciler.migrations by `migrate`.

CREATE SCHEMA reconciler;

COMMENT ON SCHEMA reconciler IS 'Who should have access to which Xray node, and what the daemon found there.';

CREATE FUNCTION reconciler.account_digest(credential uuid, inbounds text) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN SUBSTRING(sha256((uuid_send(credential) || convert_to(inbounds, 'UTF8'::name))) FROM 1 FOR 16);

CREATE FUNCTION reconciler.audit_changes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET work_mem TO '64MB'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO'
    AS $_$
DECLARE
  pairs text;
  arrays text;
  lines text;
BEGIN
  SELECT string_agg(format('o.%1$I IS DISTINCT FROM n.%1$I AS c%2$s, %3$s AS o%2$s, %4$s AS n%2$s', attname, attnum,
                           CASE WHEN attname = TG_ARGV[0] THEN '''…''' ELSE format('o.%I', attname) END,
                           CASE WHEN attname = TG_ARGV[0] THEN '''…''' ELSE format('n.%I', attname) END), ', '),
         string_agg(format('array_agg(id) FILTER (WHERE c%1$s) AS i%1$s, array_agg(o%1$s::text) FILTER (WHERE c%1$s)'
                           ' AS o%1$s, array_agg(n%1$s::text) FILTER (WHERE c%1$s) AS n%1$s', attnum), ', '),
         string_agg(format('(%L, i%2$s, o%2$s, n%2$s)', attname, attnum), ', ')
    INTO pairs, arrays, lines
    FROM pg_attribute
   WHERE attrelid = TG_RELID AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('id', 'updated_at');
  EXECUTE format('INSERT INTO reconciler.audit (table_name, column_name, row_ids, before, after)
                  SELECT %L, line.* FROM (SELECT %s FROM (SELECT id, %s FROM old_rows o JOIN new_rows n USING (id)
                                                          OFFSET 0) pair) found,
                         LATERAL (VALUES %s) AS line (name, ids, before, after) WHERE line.ids IS NOT NULL',
                 TG_TABLE_NAME, arrays, pairs, lines);
  RETURN NULL;
END $_$;

CREATE FUNCTION reconciler.audit_new() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  INSERT INTO reconciler.audit (table_name, row_ids)
  SELECT TG_TABLE_NAME, array_agg(id) FROM new_rows HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION reconciler.count_placements(node bigint, more bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION reconciler.forget_boots(node bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  forgotten bigint[] := ARRAY(
    SELECT boot FROM reconciler.node_boots WHERE node_id = node AND read_at < now() - interval '7 days'
    EXCEPT (SELECT boot FROM reconciler.node_boots WHERE node_id = node ORDER BY boot DESC LIMIT 2));
BEGIN
  DELETE FROM reconciler.usage_checkpoints WHERE node_id = node AND boot = ANY (forgotten);
  DELETE FROM reconciler.node_boots WHERE node_id = node AND boot = ANY (forgotten);
END $$;

CREATE FUNCTION reconciler.inbounds_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE TABLE reconciler.inbounds (
    id bigint NOT NULL,
    node_id bigint NOT NULL,
    tag text NOT NULL,
    protocol text NOT NULL,
    flow text DEFAULT ''::text NOT NULL,
    ended_at timestamp with time zone,
    CONSTRAINT inbounds_flow CHECK (((flow = ''::text) OR ((protocol = 'vless'::text) AND (flow = 'xtls-rprx-vision'::text)))),
    CONSTRAINT inbounds_protocol_check CHECK ((protocol = ANY (ARRAY['vless'::text, 'vmess'::text, 'trojan'::text]))),
    CONSTRAINT inbounds_tag_check CHECK (((length(tag) >= 1) AND (length(tag) <= 200)))
);

COMMENT ON TABLE reconciler.inbounds IS 'Desired: the tagged listeners of a node that hold our keys.';

CREATE FUNCTION reconciler.inbounds_text(node bigint) RETURNS text
    LANGUAGE sql STABLE
    RETURN (SELECT COALESCE(string_agg(concat_ws(''::text, inbounds.tag, inbounds.protocol, inbounds.flow), ''::text ORDER BY (inbounds.tag COLLATE "C")), ''::text) AS "coalesce" FROM reconciler.inbounds WHERE ((inbounds.node_id = inbounds_text.node) AND (inbounds.ended_at IS NULL)));

CREATE FUNCTION reconciler.keys_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION reconciler.keys_ending() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    AS $$
DECLARE
  ended bigint;
BEGIN
  SELECT count(*) INTO ended
    FROM old_rows o JOIN new_rows n USING (id) WHERE o.revoked_at IS NULL AND n.revoked_at IS NOT NULL;
  IF ended > 10 THEN
    PERFORM reconciler.refuse_mass_end(count(*) FILTER (WHERE n.id IS NOT NULL),
                                       count(*) FILTER (WHERE n.id IS NOT NULL OR k.revoked_at IS NULL), 'keys')
       FROM reconciler.keys k
       JOIN reconciler.subscriptions s ON s.id = k.subscription_id
       LEFT JOIN (old_rows o JOIN new_rows n USING (id))
         ON n.id = k.id AND o.revoked_at IS NULL AND n.revoked_at IS NOT NULL
      WHERE s.revoked_at IS NULL AND s.starts_at <= now() AND s.expires_at > now();
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION reconciler.masked(credential uuid) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (OVERLAY((credential)::text PLACING '0000'::text FROM 15 FOR 4))::uuid;

CREATE FUNCTION reconciler.name_trial() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  NEW.trial_user_id := CASE NEW.kind WHEN 'trial' THEN
    (SELECT user_id FROM reconciler.subscriptions WHERE id = NEW.subscription_id) END;
  RETURN NEW;
END $$;

CREATE FUNCTION reconciler.nodes_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION reconciler.orders_given() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  IF EXISTS (SELECT FROM new_rows WHERE node_id IS NULL) THEN
    PERFORM pg_notify('reconciler', '1 *');
  ELSE
    PERFORM reconciler.ring_nodes(ARRAY(SELECT node_id FROM new_rows));
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION reconciler.place_keys(chosen_keys bigint[], chosen_nodes bigint[], why text) RETURNS TABLE(placed_key bigint, placed_node bigint)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION reconciler.place_next(rung bigint[], turn_pools text[], turn_nodes bigint[], why text) RETURNS TABLE(placed_key bigint, placed_node bigint)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION reconciler.placements_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION reconciler.placements_counted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION reconciler.promises_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION reconciler.recount_placements() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION reconciler.refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  RAISE EXCEPTION '% on %.% is refused: %', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
    USING ERRCODE = 'raise_exception';
END $$;

CREATE FUNCTION reconciler.refuse_mass_end(ended bigint, in_force bigint, what text) RETURNS void
    LANGUAGE plpgsql
    AS $_$
DECLARE
  word text := coalesce(current_setting('reconciler.may_end', true), '');
  allowed bigint := greatest(10, in_force / 10);
BEGIN
  IF ended <= allowed THEN
    RETURN;
  END IF;
  IF word !~ '^[0-9]{0,18}$' THEN
    RAISE EXCEPTION 'reconciler.may_end = %: a whole number, of the % that one statement may end', word, what;
  END IF;
  IF ended > coalesce(nullif(word, '')::bigint, 0) THEN
    RAISE EXCEPTION 'one statement would end % of % % in force, and % are let through; if that is meant, say so in '
                    'its transaction: BEGIN; SET LOCAL reconciler.may_end = %; …; COMMIT;',
                    ended, in_force, what, allowed, ended;
  END IF;
END $_$;

CREATE FUNCTION reconciler.ring_keys(changed bigint[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION reconciler.ring_nodes(nodes bigint[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION reconciler.ring_pairs(nodes bigint[], keys bigint[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE TABLE reconciler.keys (
    id bigint NOT NULL,
    subscription_id bigint NOT NULL,
    credential uuid NOT NULL,
    pool text DEFAULT 'default'::text NOT NULL,
    spread text DEFAULT 'one'::text NOT NULL,
    revoked_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT keys_pool_check CHECK ((pool ~ '^[a-z0-9][a-z0-9._-]{0,62}$'::text)),
    CONSTRAINT keys_spread_check CHECK ((spread = ANY (ARRAY['one'::text, 'all'::text])))
);

COMMENT ON TABLE reconciler.keys IS 'Desired: one credential that opens the door.';

CREATE FUNCTION reconciler.ring_subscriptions(changed bigint[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN reconciler.ring_keys(ARRAY(SELECT keys.id FROM reconciler.keys WHERE ((keys.subscription_id = ANY (ring_subscriptions.changed)) AND (keys.revoked_at IS NULL))));

CREATE FUNCTION reconciler.stamp() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  NEW.updated_at := clock_timestamp();
  RETURN NEW;
END $$;

CREATE FUNCTION reconciler.subscriptions_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION reconciler.subscriptions_ending() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    AS $$
DECLARE
  ended bigint;
BEGIN
  SELECT count(*) INTO ended
    FROM old_rows o JOIN new_rows n USING (id)
   WHERE o.revoked_at IS NULL AND o.starts_at <= now() AND o.expires_at > now()
     AND (n.revoked_at IS NOT NULL OR n.expires_at < o.expires_at OR n.starts_at > now()
          OR n.traffic_limit_bytes IS DISTINCT FROM o.traffic_limit_bytes
             AND n.traffic_limit_bytes <= reconciler.used_bytes(n.id)
             AND (o.traffic_limit_bytes IS NULL OR o.traffic_limit_bytes > n.traffic_limit_bytes));
  IF ended > 10 THEN
    PERFORM reconciler.refuse_mass_end(ended, sum(rows)::bigint, 'subscriptions')
       FROM (SELECT count(*) FROM reconciler.subscriptions
              WHERE revoked_at IS NULL AND starts_at <= now() AND expires_at > now()
             UNION ALL
             SELECT count(*) FROM old_rows WHERE revoked_at IS NULL AND starts_at <= now() AND expires_at > now()
             UNION ALL
             SELECT -count(*) FROM new_rows WHERE revoked_at IS NULL AND starts_at <= now() AND expires_at > now()
            ) AS counted (rows);
  END IF;
  RETURN NULL;
END $$;

CREATE TABLE reconciler.usage (
    key_id bigint NOT NULL,
    up_bytes bigint DEFAULT 0 NOT NULL,
    down_bytes bigint DEFAULT 0 NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT usage_down_bytes_check CHECK ((down_bytes >= 0)),
    CONSTRAINT usage_up_bytes_check CHECK ((up_bytes >= 0))
)
WITH (fillfactor='70');

COMMENT ON TABLE reconciler.usage IS 'Status: bytes of each key since it was made; never reset.';

CREATE TABLE reconciler.usage_periods (
    subscription_id bigint NOT NULL,
    started_at timestamp with time zone NOT NULL,
    base_bytes bigint NOT NULL,
    next_at timestamp with time zone,
    CONSTRAINT usage_periods_base_bytes_check CHECK ((base_bytes >= 0))
);

COMMENT ON TABLE reconciler.usage_periods IS 'Where counting against the limit began.';

CREATE FUNCTION reconciler.used_bytes(subscription bigint) RETURNS bigint
    LANGUAGE sql STABLE
    RETURN ((SELECT (COALESCE(sum((u.up_bytes + u.down_bytes)), (0)::numeric))::bigint AS "coalesce" FROM (reconciler.keys k JOIN reconciler.usage u ON ((u.key_id = k.id))) WHERE (k.subscription_id = used_bytes.subscription)) - COALESCE((SELECT usage_periods.base_bytes FROM reconciler.usage_periods WHERE ((usage_periods.subscription_id = used_bytes.subscription) AND (usage_periods.started_at <= now())) ORDER BY usage_periods.started_at DESC LIMIT 1), (0)::bigint));

CREATE TABLE reconciler.audit (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    role text DEFAULT SESSION_USER NOT NULL,
    application text DEFAULT current_setting('application_name'::text) NOT NULL,
    transaction_id xid8 DEFAULT pg_current_xact_id() NOT NULL,
    table_name text NOT NULL,
    row_ids bigint[] NOT NULL,
    column_name text,
    before text[],
    after text[]
);
ALTER TABLE ONLY reconciler.audit ALTER COLUMN row_ids SET STORAGE EXTERNAL;
ALTER TABLE ONLY reconciler.audit ALTER COLUMN before SET STORAGE EXTERNAL;
ALTER TABLE ONLY reconciler.audit ALTER COLUMN after SET STORAGE EXTERNAL;

COMMENT ON TABLE reconciler.audit IS 'Who changed which desired rows, from what to what; written by triggers alone.';

ALTER TABLE reconciler.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reconciler.grants (
    id bigint NOT NULL,
    subscription_id bigint NOT NULL,
    kind text NOT NULL,
    days integer,
    traffic_bytes bigint,
    amount bigint,
    currency text,
    actor text NOT NULL,
    external_id text,
    resulting_expires_at timestamp with time zone NOT NULL,
    note text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    trial_user_id bigint,
    CONSTRAINT grants_actor_check CHECK (((length(actor) >= 1) AND (length(actor) <= 200))),
    CONSTRAINT grants_amount_has_currency CHECK (((amount IS NULL) = (currency IS NULL))),
    CONSTRAINT grants_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT grants_external_id_check CHECK (((length(external_id) >= 1) AND (length(external_id) <= 200))),
    CONSTRAINT grants_kind_check CHECK ((kind = ANY (ARRAY['payment'::text, 'trial'::text, 'gift'::text, 'extension'::text, 'refund'::text, 'voucher'::text, 'import'::text]))),
    CONSTRAINT grants_note_check CHECK ((length(note) <= 2000))
);

COMMENT ON TABLE reconciler.grants IS 'Desired: append-only history of what was granted and why.';

COMMENT ON COLUMN reconciler.grants.trial_user_id IS 'Written by a trigger: who had this trial; a person has one.';

ALTER TABLE reconciler.grants ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.grants_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE reconciler.inbounds ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.inbounds_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reconciler.nodes (
    id bigint NOT NULL,
    name text NOT NULL,
    api text NOT NULL,
    pool text DEFAULT 'default'::text NOT NULL,
    capacity integer,
    state text DEFAULT 'observed'::text NOT NULL,
    link_template text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT nodes_api_check CHECK (((api ~ '^(tls:)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$'::text) OR (api ~ '^unix:/.+'::text))),
    CONSTRAINT nodes_capacity_check CHECK ((capacity >= 0)),
    CONSTRAINT nodes_link_template_check CHECK ((POSITION(('{uuid}'::text) IN (link_template)) > 0)),
    CONSTRAINT nodes_name_check CHECK ((name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'::text)),
    CONSTRAINT nodes_pool_check CHECK ((pool ~ '^[a-z0-9][a-z0-9._-]{0,62}$'::text)),
    CONSTRAINT nodes_state_check CHECK ((state = ANY (ARRAY['observed'::text, 'active'::text, 'draining'::text, 'disabled'::text])))
);

COMMENT ON TABLE reconciler.nodes IS 'Desired: one Xray process.';

CREATE TABLE reconciler.placements (
    id bigint NOT NULL,
    key_id bigint NOT NULL,
    node_id bigint NOT NULL,
    reason text NOT NULL,
    placed_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    leaving_at timestamp with time zone,
    grace_seconds integer,
    CONSTRAINT placements_grace_seconds_check CHECK (((grace_seconds >= 0) AND (grace_seconds <= 2592000))),
    CONSTRAINT placements_leaving CHECK (((leaving_at IS NULL) = (grace_seconds IS NULL))),
    CONSTRAINT placements_reason_check CHECK (((length(reason) >= 1) AND (length(reason) <= 200)))
);

COMMENT ON TABLE reconciler.placements IS 'Desired: which key belongs on which node.';

CREATE TABLE reconciler.promises (
    id bigint NOT NULL,
    key_id bigint NOT NULL,
    node_id bigint NOT NULL,
    account_digest bytea NOT NULL,
    promised_until timestamp with time zone NOT NULL,
    made_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone,
    ended_reason text,
    early text,
    early_at timestamp with time zone,
    CONSTRAINT promises_early CHECK (((early IS NULL) = (early_at IS NULL))),
    CONSTRAINT promises_early_check CHECK ((early = ANY (ARRAY['early'::text, 'over_quota'::text]))),
    CONSTRAINT promises_ended CHECK (((ended_at IS NULL) OR (ended_reason IS NOT NULL)))
);

COMMENT ON TABLE reconciler.promises IS 'Status: what a key is owed on a node, and until when.';

CREATE TABLE reconciler.subscriptions (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    plan text DEFAULT ''::text NOT NULL,
    starts_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    traffic_limit_bytes bigint,
    revoked_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    traffic_renewal text,
    CONSTRAINT subscriptions_end_after_start CHECK ((expires_at > starts_at)),
    CONSTRAINT subscriptions_expires_at_check CHECK ((expires_at < '2100-01-01 00:00:00+00'::timestamp with time zone)),
    CONSTRAINT subscriptions_plan_check CHECK ((length(plan) <= 100)),
    CONSTRAINT subscriptions_starts_at_check CHECK ((starts_at >= '2000-01-01 00:00:00+00'::timestamp with time zone)),
    CONSTRAINT subscriptions_traffic_limit_bound CHECK ((traffic_limit_bytes <= '1152921504606846976'::bigint)),
    CONSTRAINT subscriptions_traffic_limit_bytes_check CHECK ((traffic_limit_bytes >= 0)),
    CONSTRAINT subscriptions_traffic_renewal_check CHECK ((traffic_renewal = 'monthly'::text))
);

COMMENT ON TABLE reconciler.subscriptions IS 'Desired: a right to access with an end, the only expiry there is.';

CREATE VIEW reconciler.key_state AS
 SELECT k.id AS key_id,
    k.subscription_id,
    s.user_id,
    n.name AS node,
    n.link_template,
    pl.placed_at,
        CASE
            WHEN (p.account_digest = reconciler.account_digest(k.credential, i.inbounds)) THEN p.made_at
            ELSE NULL::timestamp with time zone
        END AS usable_since,
    p.promised_until,
    COALESCE(g.up_bytes, (0)::bigint) AS up_bytes,
    COALESCE(g.down_bytes, (0)::bigint) AS down_bytes,
    (k.revoked_at IS NOT NULL) AS revoked,
    pl.leaving_at
   FROM ((((((reconciler.keys k
     JOIN reconciler.subscriptions s ON ((s.id = k.subscription_id)))
     LEFT JOIN reconciler.placements pl ON (((pl.key_id = k.id) AND (pl.ended_at IS NULL))))
     LEFT JOIN reconciler.nodes n ON ((n.id = pl.node_id)))
     LEFT JOIN reconciler.promises p ON (((p.key_id = k.id) AND (p.node_id = pl.node_id) AND (p.ended_at IS NULL))))
     LEFT JOIN reconciler.usage g ON ((g.key_id = k.id)))
     LEFT JOIN LATERAL ( SELECT COALESCE(string_agg(concat_ws(''::text, inbounds.tag, inbounds.protocol, inbounds.flow), ''::text ORDER BY (inbounds.tag COLLATE "C")), ''::text) AS inbounds
           FROM reconciler.inbounds
          WHERE ((inbounds.node_id = pl.node_id) AND (inbounds.ended_at IS NULL))) i ON (true));

COMMENT ON VIEW reconciler.key_state IS 'One row per key and node: where it is, since when usable, promised until when.';

ALTER TABLE reconciler.keys ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.keys_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reconciler.leases (
    node_id bigint NOT NULL,
    holder text NOT NULL,
    epoch bigint NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE reconciler.leases IS 'Status: which daemon acts on which node.';

CREATE TABLE reconciler.migrations (
    number integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE reconciler.migrations IS 'Which schema files were applied.';

CREATE TABLE reconciler.node_boots (
    node_id bigint NOT NULL,
    boot bigint NOT NULL,
    uptime_seconds bigint NOT NULL,
    allocated_bytes numeric NOT NULL,
    allocations numeric NOT NULL,
    read_at timestamp with time zone NOT NULL,
    host_read_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE reconciler.node_boots IS 'Status: the runs of each node''s Xray that traffic was read of.';

CREATE TABLE reconciler.node_status (
    node_id bigint NOT NULL,
    holder text NOT NULL,
    outcome text NOT NULL,
    active_users integer DEFAULT 0 NOT NULL,
    desired_users integer DEFAULT 0 NOT NULL,
    foreign_users integer DEFAULT 0 NOT NULL,
    orphan_users integer DEFAULT 0 NOT NULL,
    held_removals integer DEFAULT 0 NOT NULL,
    boot_at timestamp with time zone,
    last_attempt_at timestamp with time zone NOT NULL,
    last_full_at timestamp with time zone,
    last_converged_at timestamp with time zone,
    error text,
    CONSTRAINT node_status_outcome_check CHECK ((outcome = ANY (ARRAY['failed'::text, 'unreachable'::text, 'rejected'::text, 'held'::text, 'changed'::text, 'converged'::text])))
);

COMMENT ON TABLE reconciler.node_status IS 'Status: the last cycle of each node.';

CREATE TABLE reconciler.node_usage (
    node_id bigint NOT NULL,
    up_bytes bigint NOT NULL,
    down_bytes bigint NOT NULL,
    read_at timestamp with time zone NOT NULL,
    CONSTRAINT node_usage_down_bytes_check CHECK ((down_bytes >= 0)),
    CONSTRAINT node_usage_up_bytes_check CHECK ((up_bytes >= 0))
);

COMMENT ON TABLE reconciler.node_usage IS 'Status: bytes counted on each node since it was registered; never reset.';

ALTER TABLE reconciler.nodes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.nodes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reconciler.orders (
    id bigint NOT NULL,
    kind text NOT NULL,
    node_id bigint,
    key_ids bigint[] NOT NULL,
    digest bytea NOT NULL,
    count integer NOT NULL,
    actor text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    valid_until timestamp with time zone NOT NULL,
    done_at timestamp with time zone,
    CONSTRAINT orders_actor_check CHECK (((length(actor) >= 1) AND (length(actor) <= 200))),
    CONSTRAINT orders_count CHECK ((count = cardinality(key_ids))),
    CONSTRAINT orders_digest CHECK ((digest = sha256(convert_to(array_to_string(key_ids, ','::text), 'UTF8'::name)))),
    CONSTRAINT orders_kind_check CHECK ((kind = ANY (ARRAY['release'::text, 'purge_orphans'::text, 'empty'::text, 'leave_behind'::text])))
);

COMMENT ON TABLE reconciler.orders IS 'An operator''s word to the daemon, bound to exactly the keys that were shown.';

ALTER TABLE reconciler.orders ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.orders_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reconciler.placement_counts (
    node_id bigint NOT NULL,
    live integer NOT NULL
);

ALTER TABLE reconciler.placements ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.placements_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE reconciler.promises ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.promises_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reconciler.source (
    single boolean DEFAULT true NOT NULL,
    owner text NOT NULL,
    identity uuid DEFAULT gen_random_uuid() NOT NULL,
    beat bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT source_owner_check CHECK ((owner ~ '^[a-z0-9-]{1,32}$'::text)),
    CONSTRAINT source_single_check CHECK (single)
);

COMMENT ON TABLE reconciler.source IS 'One row: our mark on every node, and what tells this database from its copies.';

CREATE TABLE reconciler.users (
    id bigint NOT NULL,
    telegram_id bigint,
    name text NOT NULL,
    role text DEFAULT 'user'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT users_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT users_role_check CHECK ((role = ANY (ARRAY['user'::text, 'manager'::text, 'admin'::text])))
);

COMMENT ON TABLE reconciler.users IS 'Desired: a person.';

CREATE VIEW reconciler.subscription_state AS
 SELECT u.id AS user_id,
    u.name AS user_name,
    u.telegram_id,
    s.id AS subscription_id,
    s.plan,
    s.starts_at,
    s.expires_at,
    s.traffic_limit_bytes,
    used.used_bytes,
    s.revoked_at,
        CASE
            WHEN (s.id IS NULL) THEN 'no_subscription'::text
            WHEN (s.revoked_at IS NOT NULL) THEN 'revoked'::text
            WHEN (s.expires_at <= now()) THEN 'expired'::text
            WHEN (used.used_bytes >= s.traffic_limit_bytes) THEN 'over_quota'::text
            WHEN (s.expires_at <= (now() + '7 days'::interval)) THEN 'expiring_in_7d'::text
            ELSE 'active'::text
        END AS bucket
   FROM ((reconciler.users u
     LEFT JOIN reconciler.subscriptions s ON ((s.user_id = u.id)))
     LEFT JOIN LATERAL ( SELECT ((COALESCE(sum((g.up_bytes + g.down_bytes)), (0)::numeric))::bigint - COALESCE(( SELECT p.base_bytes
                   FROM reconciler.usage_periods p
                  WHERE ((p.subscription_id = s.id) AND (p.started_at <= now()))
                  ORDER BY p.started_at DESC
                 LIMIT 1), (0)::bigint)) AS used_bytes
           FROM (reconciler.keys k
             JOIN reconciler.usage g ON ((g.key_id = k.id)))
          WHERE (k.subscription_id = s.id)) used ON ((s.id IS NOT NULL)));

COMMENT ON VIEW reconciler.subscription_state IS 'One row per user and subscription, with the bucket it falls in.';

ALTER TABLE reconciler.subscriptions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.subscriptions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reconciler.usage_checkpoints (
    node_id bigint NOT NULL,
    boot bigint NOT NULL,
    key_id bigint NOT NULL,
    direction text NOT NULL,
    last_bytes bigint NOT NULL,
    CONSTRAINT usage_checkpoints_direction_check CHECK ((direction = ANY (ARRAY['up'::text, 'down'::text]))),
    CONSTRAINT usage_checkpoints_last_bytes_check CHECK ((last_bytes >= 0))
)
WITH (fillfactor='70');

COMMENT ON TABLE reconciler.usage_checkpoints IS 'Status: the last cumulative reading per boot of a node.';

ALTER TABLE reconciler.users ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.users_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY reconciler.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reconciler.grants
    ADD CONSTRAINT grants_external_id_key UNIQUE (external_id);

ALTER TABLE ONLY reconciler.grants
    ADD CONSTRAINT grants_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reconciler.inbounds
    ADD CONSTRAINT inbounds_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reconciler.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reconciler.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (node_id);

ALTER TABLE ONLY reconciler.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (number);

ALTER TABLE ONLY reconciler.node_boots
    ADD CONSTRAINT node_boots_pkey PRIMARY KEY (node_id, boot);

ALTER TABLE ONLY reconciler.node_status
    ADD CONSTRAINT node_status_pkey PRIMARY KEY (node_id);

ALTER TABLE ONLY reconciler.node_usage
    ADD CONSTRAINT node_usage_pkey PRIMARY KEY (node_id);

ALTER TABLE ONLY reconciler.nodes
    ADD CONSTRAINT nodes_api_key UNIQUE (api);

ALTER TABLE ONLY reconciler.nodes
    ADD CONSTRAINT nodes_name_key UNIQUE (name);

ALTER TABLE ONLY reconciler.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reconciler.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reconciler.placements
    ADD CONSTRAINT placements_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reconciler.promises
    ADD CONSTRAINT promises_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reconciler.source
    ADD CONSTRAINT source_pkey PRIMARY KEY (single);

ALTER TABLE ONLY reconciler.subscriptions
    ADD CONSTRAINT subscriptions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reconciler.usage_checkpoints
    ADD CONSTRAINT usage_checkpoints_pkey PRIMARY KEY (node_id, boot, key_id, direction);

ALTER TABLE ONLY reconciler.usage_periods
    ADD CONSTRAINT usage_periods_pkey PRIMARY KEY (subscription_id, started_at);

ALTER TABLE ONLY reconciler.usage
    ADD CONSTRAINT usage_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY reconciler.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reconciler.users
    ADD CONSTRAINT users_telegram_id_key UNIQUE (telegram_id);

CREATE INDEX audit_at ON reconciler.audit USING btree (at);

CREATE INDEX audit_bulk ON reconciler.audit USING btree (table_name) WHERE (cardinality(row_ids) > 1);

CREATE INDEX audit_single ON reconciler.audit USING btree (table_name, (row_ids[1])) WHERE (cardinality(row_ids) = 1);

CREATE UNIQUE INDEX grants_one_trial ON reconciler.grants USING btree (trial_user_id);

CREATE INDEX grants_subscription ON reconciler.grants USING btree (subscription_id);

CREATE UNIQUE INDEX inbounds_live_tag ON reconciler.inbounds USING btree (node_id, tag) WHERE (ended_at IS NULL);

CREATE UNIQUE INDEX keys_credential_masked ON reconciler.keys USING btree (reconciler.masked(credential));

CREATE INDEX keys_subscription ON reconciler.keys USING btree (subscription_id);

CREATE INDEX orders_open ON reconciler.orders USING btree (node_id) WHERE (done_at IS NULL);

CREATE INDEX placement_counts_node ON reconciler.placement_counts USING btree (node_id);

CREATE INDEX placements_ended ON reconciler.placements USING btree (key_id, node_id) WHERE (ended_at IS NOT NULL);

CREATE INDEX placements_leaving ON reconciler.placements USING btree (node_id, key_id) WHERE ((leaving_at IS NOT NULL) AND (ended_at IS NULL));

CREATE INDEX placements_left ON reconciler.placements USING btree (leaving_at) WHERE (leaving_at IS NOT NULL);

CREATE UNIQUE INDEX placements_live ON reconciler.placements USING btree (key_id, node_id) INCLUDE (leaving_at) WHERE (ended_at IS NULL);

CREATE INDEX placements_live_node ON reconciler.placements USING btree (node_id, key_id) INCLUDE (placed_at) WHERE (ended_at IS NULL);

CREATE INDEX promises_early ON reconciler.promises USING btree (node_id, early_at) WHERE (early IS NOT NULL);

CREATE INDEX promises_ended ON reconciler.promises USING btree (key_id, node_id) WHERE (ended_at IS NOT NULL);

CREATE UNIQUE INDEX promises_live ON reconciler.promises USING btree (key_id, node_id) WHERE (ended_at IS NULL);

CREATE INDEX promises_live_node ON reconciler.promises USING btree (node_id, key_id) INCLUDE (account_digest, promised_until, early_at) WHERE (ended_at IS NULL);

CREATE INDEX subscriptions_expiry ON reconciler.subscriptions USING btree (expires_at);

CREATE INDEX subscriptions_start ON reconciler.subscriptions USING btree (starts_at);

CREATE INDEX subscriptions_traffic_renewal ON reconciler.subscriptions USING btree (id) WHERE (traffic_renewal IS NOT NULL);

CREATE INDEX subscriptions_user ON reconciler.subscriptions USING btree (user_id);

CREATE INDEX usage_periods_next ON reconciler.usage_periods USING btree (next_at, subscription_id) WHERE (next_at IS NOT NULL);

CREATE TRIGGER audit AFTER UPDATE ON reconciler.inbounds REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_changes();

CREATE TRIGGER audit AFTER UPDATE ON reconciler.keys REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_changes('credential');

CREATE TRIGGER audit AFTER UPDATE ON reconciler.nodes REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_changes();

CREATE TRIGGER audit AFTER UPDATE ON reconciler.orders REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_changes();

CREATE TRIGGER audit AFTER UPDATE ON reconciler.placements REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_changes();

CREATE TRIGGER audit AFTER UPDATE ON reconciler.subscriptions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_changes();

CREATE TRIGGER audit AFTER UPDATE ON reconciler.users REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_changes();

CREATE TRIGGER audit_new AFTER INSERT ON reconciler.grants REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_new();

CREATE TRIGGER audit_new AFTER INSERT ON reconciler.inbounds REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_new();

CREATE TRIGGER audit_new AFTER INSERT ON reconciler.keys REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_new();

CREATE TRIGGER audit_new AFTER INSERT ON reconciler.nodes REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_new();

CREATE TRIGGER audit_new AFTER INSERT ON reconciler.orders REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_new();

CREATE TRIGGER audit_new AFTER INSERT ON reconciler.placements REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_new();

CREATE TRIGGER audit_new AFTER INSERT ON reconciler.subscriptions REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_new();

CREATE TRIGGER audit_new AFTER INSERT ON reconciler.users REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_new();

CREATE TRIGGER count AFTER UPDATE ON reconciler.placements REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.placements_counted();

CREATE TRIGGER count_new AFTER INSERT ON reconciler.placements REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.placements_counted();

CREATE TRIGGER ending AFTER UPDATE ON reconciler.keys REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.keys_ending();

CREATE TRIGGER ending AFTER UPDATE ON reconciler.subscriptions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.subscriptions_ending();

CREATE TRIGGER keep BEFORE UPDATE OR TRUNCATE ON reconciler.audit FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('history stays');

CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.grants FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('history stays');

CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.inbounds FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('end the row instead');

CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.keys FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('end the row instead');

CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.nodes FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('set its state to disabled instead');

CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.orders FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('history stays');

CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.placements FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('end the row instead');

CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.source FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('the mark stands on every node');

CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.subscriptions FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('end the row instead');

CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.users FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('end the row instead');

CREATE TRIGGER keep_fresh BEFORE DELETE ON reconciler.audit FOR EACH ROW WHEN ((old.at > (now() - '90 days'::interval))) EXECUTE FUNCTION reconciler.refuse('history stays for 90 days');

CREATE TRIGGER name_trial BEFORE INSERT ON reconciler.grants FOR EACH ROW WHEN (((new.kind = 'trial'::text) OR (new.trial_user_id IS NOT NULL))) EXECUTE FUNCTION reconciler.name_trial();

CREATE TRIGGER ring AFTER UPDATE ON reconciler.inbounds REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.inbounds_changed();

CREATE TRIGGER ring AFTER UPDATE ON reconciler.keys REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.keys_changed();

CREATE TRIGGER ring AFTER UPDATE ON reconciler.nodes REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.nodes_changed();

CREATE TRIGGER ring AFTER UPDATE ON reconciler.placements REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.placements_changed();

CREATE TRIGGER ring AFTER UPDATE ON reconciler.promises REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.promises_changed();

CREATE TRIGGER ring AFTER UPDATE ON reconciler.subscriptions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.subscriptions_changed();

CREATE TRIGGER ring_new AFTER INSERT ON reconciler.inbounds REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.inbounds_changed();

CREATE TRIGGER ring_new AFTER INSERT ON reconciler.keys REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.keys_changed();

CREATE TRIGGER ring_new AFTER INSERT ON reconciler.nodes REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.nodes_changed();

CREATE TRIGGER ring_new AFTER INSERT ON reconciler.orders REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.orders_given();

CREATE TRIGGER ring_new AFTER INSERT ON reconciler.placements REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.placements_changed();

CREATE TRIGGER ring_new AFTER INSERT ON reconciler.promises REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION reconciler.promises_changed();

CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON reconciler.keys FOR EACH ROW EXECUTE FUNCTION reconciler.stamp();

CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON reconciler.nodes FOR EACH ROW EXECUTE FUNCTION reconciler.stamp();

CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON reconciler.subscriptions FOR EACH ROW EXECUTE FUNCTION reconciler.stamp();

CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON reconciler.users FOR EACH ROW EXECUTE FUNCTION reconciler.stamp();

CREATE TRIGGER written_once BEFORE UPDATE ON reconciler.grants FOR EACH ROW EXECUTE FUNCTION reconciler.refuse('history stays');

CREATE TRIGGER written_once BEFORE UPDATE ON reconciler.orders FOR EACH ROW WHEN (((old.kind <> new.kind) OR (old.node_id IS DISTINCT FROM new.node_id) OR (old.actor <> new.actor) OR (old.key_ids <> new.key_ids) OR (old.digest <> new.digest))) EXECUTE FUNCTION reconciler.refuse('an order is bound to what was shown');

CREATE TRIGGER written_once BEFORE UPDATE ON reconciler.source FOR EACH ROW WHEN ((old.owner <> new.owner)) EXECUTE FUNCTION reconciler.refuse('the mark stands on every node');

ALTER TABLE ONLY reconciler.grants
    ADD CONSTRAINT grants_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES reconciler.subscriptions(id);

ALTER TABLE ONLY reconciler.grants
    ADD CONSTRAINT grants_trial_user_id_fkey FOREIGN KEY (trial_user_id) REFERENCES reconciler.users(id);

ALTER TABLE ONLY reconciler.inbounds
    ADD CONSTRAINT inbounds_node_id_fkey FOREIGN KEY (node_id) REFERENCES reconciler.nodes(id);

ALTER TABLE ONLY reconciler.keys
    ADD CONSTRAINT keys_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES reconciler.subscriptions(id);

ALTER TABLE ONLY reconciler.leases
    ADD CONSTRAINT leases_node_id_fkey FOREIGN KEY (node_id) REFERENCES reconciler.nodes(id);

ALTER TABLE ONLY reconciler.node_boots
    ADD CONSTRAINT node_boots_node_id_fkey FOREIGN KEY (node_id) REFERENCES reconciler.nodes(id);

ALTER TABLE ONLY reconciler.node_status
    ADD CONSTRAINT node_status_node_id_fkey FOREIGN KEY (node_id) REFERENCES reconciler.nodes(id);

ALTER TABLE ONLY reconciler.node_usage
    ADD CONSTRAINT node_usage_node_id_fkey FOREIGN KEY (node_id) REFERENCES reconciler.nodes(id);

ALTER TABLE ONLY reconciler.orders
    ADD CONSTRAINT orders_node_id_fkey FOREIGN KEY (node_id) REFERENCES reconciler.nodes(id);

ALTER TABLE ONLY reconciler.placement_counts
    ADD CONSTRAINT placement_counts_node_id_fkey FOREIGN KEY (node_id) REFERENCES reconciler.nodes(id);

ALTER TABLE ONLY reconciler.placements
    ADD CONSTRAINT placements_key_id_fkey FOREIGN KEY (key_id) REFERENCES reconciler.keys(id);

ALTER TABLE ONLY reconciler.placements
    ADD CONSTRAINT placements_node_id_fkey FOREIGN KEY (node_id) REFERENCES reconciler.nodes(id);

ALTER TABLE ONLY reconciler.promises
    ADD CONSTRAINT promises_key_id_fkey FOREIGN KEY (key_id) REFERENCES reconciler.keys(id);

ALTER TABLE ONLY reconciler.promises
    ADD CONSTRAINT promises_node_id_fkey FOREIGN KEY (node_id) REFERENCES reconciler.nodes(id);

ALTER TABLE ONLY reconciler.subscriptions
    ADD CONSTRAINT subscriptions_user_id_fkey FOREIGN KEY (user_id) REFERENCES reconciler.users(id);

ALTER TABLE ONLY reconciler.usage_checkpoints
    ADD CONSTRAINT usage_checkpoints_node_id_fkey FOREIGN KEY (node_id) REFERENCES reconciler.nodes(id);

ALTER TABLE ONLY reconciler.usage
    ADD CONSTRAINT usage_key_id_fkey FOREIGN KEY (key_id) REFERENCES reconciler.keys(id);

ALTER TABLE ONLY reconciler.usage_periods
    ADD CONSTRAINT usage_periods_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES reconciler.subscriptions(id);

GRANT USAGE ON SCHEMA reconciler TO reconciler_daemon;
GRANT USAGE ON SCHEMA reconciler TO reconciler_operator;
GRANT USAGE ON SCHEMA reconciler TO reconciler_reader;
GRANT USAGE ON SCHEMA reconciler TO reconciler_writer;

REVOKE ALL ON FUNCTION reconciler.account_digest(credential uuid, inbounds text) FROM PUBLIC;
GRANT ALL ON FUNCTION reconciler.account_digest(credential uuid, inbounds text) TO reconciler_daemon;
GRANT ALL ON FUNCTION reconciler.account_digest(credential uuid, inbounds text) TO reconciler_operator;
GRANT ALL ON FUNCTION reconciler.account_digest(credential uuid, inbounds text) TO reconciler_reader;
GRANT ALL ON FUNCTION reconciler.account_digest(credential uuid, inbounds text) TO reconciler_writer;

REVOKE ALL ON FUNCTION reconciler.audit_changes() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.audit_new() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.count_placements(node bigint, more bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.forget_boots(node bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION reconciler.forget_boots(node bigint) TO reconciler_daemon;

REVOKE ALL ON FUNCTION reconciler.inbounds_changed() FROM PUBLIC;

GRANT SELECT ON TABLE reconciler.inbounds TO reconciler_daemon;
GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.inbounds TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.inbounds TO reconciler_reader;

REVOKE ALL ON FUNCTION reconciler.inbounds_text(node bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION reconciler.inbounds_text(node bigint) TO reconciler_daemon;
GRANT ALL ON FUNCTION reconciler.inbounds_text(node bigint) TO reconciler_operator;
GRANT ALL ON FUNCTION reconciler.inbounds_text(node bigint) TO reconciler_reader;

REVOKE ALL ON FUNCTION reconciler.keys_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.keys_ending() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.masked(credential uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION reconciler.masked(credential uuid) TO reconciler_writer;
GRANT ALL ON FUNCTION reconciler.masked(credential uuid) TO reconciler_operator;

REVOKE ALL ON FUNCTION reconciler.name_trial() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.nodes_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.orders_given() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.place_keys(chosen_keys bigint[], chosen_nodes bigint[], why text) FROM PUBLIC;
GRANT ALL ON FUNCTION reconciler.place_keys(chosen_keys bigint[], chosen_nodes bigint[], why text) TO reconciler_daemon;

REVOKE ALL ON FUNCTION reconciler.place_next(rung bigint[], turn_pools text[], turn_nodes bigint[], why text) FROM PUBLIC;
GRANT ALL ON FUNCTION reconciler.place_next(rung bigint[], turn_pools text[], turn_nodes bigint[], why text) TO reconciler_daemon;

REVOKE ALL ON FUNCTION reconciler.placements_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.placements_counted() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.promises_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.recount_placements() FROM PUBLIC;
GRANT ALL ON FUNCTION reconciler.recount_placements() TO reconciler_operator;

REVOKE ALL ON FUNCTION reconciler.refuse() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.refuse_mass_end(ended bigint, in_force bigint, what text) FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.ring_keys(changed bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.ring_nodes(nodes bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.ring_pairs(nodes bigint[], keys bigint[]) FROM PUBLIC;

GRANT SELECT ON TABLE reconciler.keys TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.keys TO reconciler_writer;
GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.keys TO reconciler_operator;

GRANT SELECT(id) ON TABLE reconciler.keys TO reconciler_reader;

GRANT INSERT(subscription_id) ON TABLE reconciler.keys TO reconciler_writer;
GRANT SELECT(subscription_id) ON TABLE reconciler.keys TO reconciler_reader;

GRANT INSERT(credential),UPDATE(credential) ON TABLE reconciler.keys TO reconciler_writer;

GRANT INSERT(pool),UPDATE(pool) ON TABLE reconciler.keys TO reconciler_writer;
GRANT SELECT(pool) ON TABLE reconciler.keys TO reconciler_reader;

GRANT INSERT(spread),UPDATE(spread) ON TABLE reconciler.keys TO reconciler_writer;
GRANT SELECT(spread) ON TABLE reconciler.keys TO reconciler_reader;

GRANT UPDATE(revoked_at) ON TABLE reconciler.keys TO reconciler_writer;
GRANT SELECT(revoked_at) ON TABLE reconciler.keys TO reconciler_reader;

GRANT SELECT(created_at) ON TABLE reconciler.keys TO reconciler_reader;

GRANT SELECT(updated_at) ON TABLE reconciler.keys TO reconciler_reader;

REVOKE ALL ON FUNCTION reconciler.ring_subscriptions(changed bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION reconciler.ring_subscriptions(changed bigint[]) TO reconciler_daemon;

REVOKE ALL ON FUNCTION reconciler.stamp() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.subscriptions_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION reconciler.subscriptions_ending() FROM PUBLIC;

GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.usage TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.usage TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.usage TO reconciler_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.usage_periods TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.usage_periods TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.usage_periods TO reconciler_reader;

REVOKE ALL ON FUNCTION reconciler.used_bytes(subscription bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION reconciler.used_bytes(subscription bigint) TO reconciler_daemon;
GRANT ALL ON FUNCTION reconciler.used_bytes(subscription bigint) TO reconciler_operator;
GRANT ALL ON FUNCTION reconciler.used_bytes(subscription bigint) TO reconciler_reader;

GRANT SELECT ON TABLE reconciler.audit TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.audit TO reconciler_reader;

GRANT SELECT ON TABLE reconciler.grants TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.grants TO reconciler_writer;
GRANT SELECT,INSERT ON TABLE reconciler.grants TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.grants TO reconciler_reader;

GRANT INSERT(subscription_id) ON TABLE reconciler.grants TO reconciler_writer;

GRANT INSERT(kind) ON TABLE reconciler.grants TO reconciler_writer;

GRANT INSERT(days) ON TABLE reconciler.grants TO reconciler_writer;

GRANT INSERT(traffic_bytes) ON TABLE reconciler.grants TO reconciler_writer;

GRANT INSERT(amount) ON TABLE reconciler.grants TO reconciler_writer;

GRANT INSERT(currency) ON TABLE reconciler.grants TO reconciler_writer;

GRANT INSERT(actor) ON TABLE reconciler.grants TO reconciler_writer;

GRANT INSERT(external_id) ON TABLE reconciler.grants TO reconciler_writer;

GRANT INSERT(resulting_expires_at) ON TABLE reconciler.grants TO reconciler_writer;

GRANT INSERT(note) ON TABLE reconciler.grants TO reconciler_writer;

GRANT SELECT ON TABLE reconciler.nodes TO reconciler_daemon;
GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.nodes TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.nodes TO reconciler_reader;

GRANT SELECT ON TABLE reconciler.placements TO reconciler_daemon;
GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.placements TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.placements TO reconciler_reader;

GRANT INSERT(key_id) ON TABLE reconciler.placements TO reconciler_daemon;

GRANT INSERT(node_id) ON TABLE reconciler.placements TO reconciler_daemon;

GRANT INSERT(reason) ON TABLE reconciler.placements TO reconciler_daemon;

GRANT UPDATE(ended_at) ON TABLE reconciler.placements TO reconciler_daemon;

GRANT UPDATE(leaving_at) ON TABLE reconciler.placements TO reconciler_daemon;

GRANT UPDATE(grace_seconds) ON TABLE reconciler.placements TO reconciler_daemon;

GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.promises TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.promises TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.promises TO reconciler_reader;

GRANT SELECT ON TABLE reconciler.subscriptions TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.subscriptions TO reconciler_writer;
GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.subscriptions TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.subscriptions TO reconciler_reader;

GRANT INSERT(user_id) ON TABLE reconciler.subscriptions TO reconciler_writer;

GRANT INSERT(plan),UPDATE(plan) ON TABLE reconciler.subscriptions TO reconciler_writer;

GRANT INSERT(starts_at),UPDATE(starts_at) ON TABLE reconciler.subscriptions TO reconciler_writer;

GRANT INSERT(expires_at),UPDATE(expires_at) ON TABLE reconciler.subscriptions TO reconciler_writer;

GRANT INSERT(traffic_limit_bytes),UPDATE(traffic_limit_bytes) ON TABLE reconciler.subscriptions TO reconciler_writer;

GRANT UPDATE(revoked_at) ON TABLE reconciler.subscriptions TO reconciler_writer;

GRANT INSERT(traffic_renewal),UPDATE(traffic_renewal) ON TABLE reconciler.subscriptions TO reconciler_writer;

GRANT SELECT ON TABLE reconciler.key_state TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.key_state TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.key_state TO reconciler_reader;
GRANT SELECT ON TABLE reconciler.key_state TO reconciler_writer;

GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.leases TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.leases TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.leases TO reconciler_reader;

GRANT SELECT ON TABLE reconciler.migrations TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.migrations TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.migrations TO reconciler_reader;
GRANT SELECT ON TABLE reconciler.migrations TO reconciler_writer;

GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.node_boots TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.node_boots TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.node_boots TO reconciler_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.node_status TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.node_status TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.node_status TO reconciler_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.node_usage TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.node_usage TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.node_usage TO reconciler_reader;

GRANT SELECT ON TABLE reconciler.orders TO reconciler_daemon;
GRANT SELECT,INSERT ON TABLE reconciler.orders TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.orders TO reconciler_reader;

GRANT UPDATE(done_at) ON TABLE reconciler.orders TO reconciler_daemon;

GRANT SELECT ON TABLE reconciler.placement_counts TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.placement_counts TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.placement_counts TO reconciler_reader;

GRANT SELECT ON TABLE reconciler.source TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.source TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.source TO reconciler_reader;

GRANT UPDATE(beat) ON TABLE reconciler.source TO reconciler_daemon;

GRANT SELECT ON TABLE reconciler.users TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.users TO reconciler_writer;
GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.users TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.users TO reconciler_reader;

GRANT INSERT(telegram_id),UPDATE(telegram_id) ON TABLE reconciler.users TO reconciler_writer;

GRANT INSERT(name),UPDATE(name) ON TABLE reconciler.users TO reconciler_writer;

GRANT SELECT ON TABLE reconciler.subscription_state TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.subscription_state TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.subscription_state TO reconciler_reader;
GRANT SELECT ON TABLE reconciler.subscription_state TO reconciler_writer;

GRANT SELECT,INSERT,UPDATE ON TABLE reconciler.usage_checkpoints TO reconciler_daemon;
GRANT SELECT ON TABLE reconciler.usage_checkpoints TO reconciler_operator;
GRANT SELECT ON TABLE reconciler.usage_checkpoints TO reconciler_reader;
