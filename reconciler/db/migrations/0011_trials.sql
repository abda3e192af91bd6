-- A person has one trial: of the grants whose kind is trial, each names whose it is, and no two name the same.

ALTER TABLE reconciler.grants ADD COLUMN trial_user_id bigint REFERENCES reconciler.users;
COMMENT ON COLUMN reconciler.grants.trial_user_id IS 'Written by a trigger: who had this trial; a person has one.';

-- Of those who have had more already, the first counts.
ALTER TABLE reconciler.grants DISABLE TRIGGER written_once;
UPDATE reconciler.grants g SET trial_user_id = first.user_id
  FROM (SELECT DISTINCT ON (s.user_id) g.id, s.user_id
          FROM reconciler.grants g JOIN reconciler.subscriptions s ON s.id = g.subscription_id
         WHERE g.kind = 'trial' ORDER BY s.user_id, g.id) first
 WHERE first.id = g.id;
ALTER TABLE reconciler.grants ENABLE TRIGGER written_once;
CREATE UNIQUE INDEX grants_one_trial ON reconciler.grants (trial_user_id);

CREATE FUNCTION reconciler.name_trial() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.trial_user_id := CASE NEW.kind WHEN 'trial' THEN
    (SELECT user_id FROM reconciler.subscriptions WHERE id = NEW.subscription_id) END;
  RETURN NEW;
END $$;
CREATE TRIGGER name_trial BEFORE INSERT ON reconciler.grants
  FOR EACH ROW WHEN (NEW.kind = 'trial' OR NEW.trial_user_id IS NOT NULL) EXECUTE FUNCTION reconciler.name_trial();

REVOKE ALL ON FUNCTION reconciler.name_trial FROM PUBLIC;
