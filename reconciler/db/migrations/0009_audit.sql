-- Who changed what, when, and from what to what: of every statement on a desired table, whatever wrote it.
--
-- One row for each column that a statement changed, with arrays over the rows it changed it in, because a row for each
-- of 100,000 costs more than the statement itself. New rows are told by their ids alone: what they said stands in
-- them, or in `before` of their first change. A credential is only told to be another one.

CREATE TABLE reconciler.audit (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at             timestamptz NOT NULL DEFAULT clock_timestamp(),
  role           text NOT NULL DEFAULT session_user,
  application    text NOT NULL DEFAULT current_setting('application_name'),
  transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
  table_name     text NOT NULL,
  row_ids        bigint[] NOT NULL,
  column_name    text,      -- null where the rows are new
  before         text[],    -- in the order of row_ids
  after          text[]
);
-- Compressing what a bulk statement leaves would take longer than writing it.
ALTER TABLE reconciler.audit ALTER row_ids SET STORAGE EXTERNAL, ALTER before SET STORAGE EXTERNAL,
                             ALTER after SET STORAGE EXTERNAL;
CREATE INDEX audit_at ON reconciler.audit (at);
CREATE INDEX audit_single ON reconciler.audit (table_name, (row_ids[1])) WHERE cardinality(row_ids) = 1;
CREATE INDEX audit_bulk ON reconciler.audit (table_name) WHERE cardinality(row_ids) > 1;

COMMENT ON TABLE reconciler.audit IS 'Who changed which desired rows, from what to what; written by triggers alone.';

CREATE FUNCTION reconciler.audit_new() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO reconciler.audit (table_name, row_ids)
  SELECT TG_TABLE_NAME, array_agg(id) FROM new_rows HAVING count(*) > 0;
  RETURN NULL;
END $$;

-- The argument names a column that is a secret. The statement is made for the table's columns and planned each time: a
-- plan that suited one row would not suit 100,000.
CREATE FUNCTION reconciler.audit_changes() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_nestloop = off
  SET work_mem = '64MB' SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
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
END $$;

DO $$
DECLARE
  audited text;
BEGIN
  FOREACH audited IN ARRAY ARRAY['users', 'subscriptions', 'keys', 'grants', 'nodes', 'inbounds', 'placements', 'orders']
  LOOP
    EXECUTE format('CREATE TRIGGER audit_new AFTER INSERT ON reconciler.%I REFERENCING NEW TABLE AS new_rows
                    FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_new()', audited);
    CONTINUE WHEN audited = 'grants';  -- which are never changed
    EXECUTE format('CREATE TRIGGER audit AFTER UPDATE ON reconciler.%I
                    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
                    FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_changes(%s)',
                   audited, CASE audited WHEN 'keys' THEN '''credential''' ELSE '' END);
  END LOOP;
END $$;

-- Whoever owns the tables may drop what is old; nobody alters it, nor covers a fresh track.
CREATE TRIGGER keep BEFORE UPDATE OR TRUNCATE ON reconciler.audit
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('history stays');
CREATE TRIGGER keep_fresh BEFORE DELETE ON reconciler.audit
  FOR EACH ROW WHEN (OLD.at > now() - interval '90 days')
  EXECUTE FUNCTION reconciler.refuse('history stays for 90 days');

REVOKE ALL ON FUNCTION reconciler.audit_new, reconciler.audit_changes FROM PUBLIC;
GRANT SELECT ON reconciler.audit TO reconciler_operator, reconciler_reader;
