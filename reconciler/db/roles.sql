-- Group roles of the whole cluster: what each may do in this database stands in the migrations. Grant them to
-- login roles of your own. Another database of this cluster may be making them at the same moment.

DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['reconciler_daemon', 'reconciler_operator', 'reconciler_reader', 'reconciler_writer']
  LOOP
    IF to_regrole(wanted) IS NULL THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
      END;
    END IF;
  END LOOP;
END $$;
