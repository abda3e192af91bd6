-- One statement ends no more than a tenth of what is in force, unless its transaction says how many it may end.
--
-- What the daemon's guard holds back on the nodes is then a second line: a slip in psql is refused here, before it is
-- committed, whoever makes it. A row is ended by a revocation, an end moved back, a start moved ahead, or a limit that
-- its traffic has reached already. Rows are joined without a loop, because plans are kept for the session.

-- Refuses when more are ended than a tenth of those in force, than ten, and than `reconciler.may_end` says.
CREATE FUNCTION reconciler.refuse_mass_end(ended bigint, in_force bigint, what text) RETURNS void LANGUAGE plpgsql AS $$
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
END $$;

CREATE FUNCTION reconciler.subscriptions_ending() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_nestloop = off AS $$
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

CREATE FUNCTION reconciler.keys_ending() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_nestloop = off AS $$
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

CREATE TRIGGER ending AFTER UPDATE ON reconciler.subscriptions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.subscriptions_ending();
CREATE TRIGGER ending AFTER UPDATE ON reconciler.keys REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.keys_ending();

REVOKE ALL ON FUNCTION reconciler.refuse_mass_end, reconciler.subscriptions_ending, reconciler.keys_ending FROM PUBLIC;
