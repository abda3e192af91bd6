-- What the tables refuse, whoever asks: rows are ended, history stays as it was written, marks are for ever.

-- ---------------------------------------------------------------- when a row changed, by the server's clock

CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON reconciler.users
  FOR EACH ROW EXECUTE FUNCTION reconciler.stamp();
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON reconciler.subscriptions
  FOR EACH ROW EXECUTE FUNCTION reconciler.stamp();
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON reconciler.keys
  FOR EACH ROW EXECUTE FUNCTION reconciler.stamp();
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON reconciler.nodes
  FOR EACH ROW EXECUTE FUNCTION reconciler.stamp();

-- ---------------------------------------------------------------- a missing row would explain nothing

CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.users
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('end the row instead');
CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.subscriptions
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('end the row instead');
CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.keys
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('end the row instead');
CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.grants
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('history stays');
CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.nodes
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('set its state to disabled instead');
CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.inbounds
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('end the row instead');
CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.placements
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('end the row instead');
CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.orders
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('history stays');
CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON reconciler.source
  FOR EACH STATEMENT EXECUTE FUNCTION reconciler.refuse('the mark stands on every node');

-- ---------------------------------------------------------------- what is written once

CREATE TRIGGER written_once BEFORE UPDATE ON reconciler.grants
  FOR EACH ROW EXECUTE FUNCTION reconciler.refuse('history stays');
CREATE TRIGGER written_once BEFORE UPDATE ON reconciler.orders
  FOR EACH ROW WHEN (OLD.kind <> NEW.kind OR OLD.node_id IS DISTINCT FROM NEW.node_id OR OLD.actor <> NEW.actor
                     OR OLD.key_ids <> NEW.key_ids OR OLD.digest <> NEW.digest)
  EXECUTE FUNCTION reconciler.refuse('an order is bound to what was shown');
CREATE TRIGGER written_once BEFORE UPDATE ON reconciler.source
  FOR EACH ROW WHEN (OLD.owner <> NEW.owner)
  EXECUTE FUNCTION reconciler.refuse('the mark stands on every node');

-- ---------------------------------------------------------------- what is what, for whoever looks with psql

COMMENT ON SCHEMA reconciler IS 'Who should have access to which Xray node, and what the daemon found there.';
COMMENT ON TABLE reconciler.migrations IS 'Which schema files were applied.';
COMMENT ON TABLE reconciler.users IS 'Desired: a person.';
COMMENT ON TABLE reconciler.subscriptions IS 'Desired: a right to access with an end, the only expiry there is.';
COMMENT ON TABLE reconciler.keys IS 'Desired: one credential that opens the door.';
COMMENT ON TABLE reconciler.grants IS 'Desired: append-only history of what was granted and why.';
COMMENT ON TABLE reconciler.nodes IS 'Desired: one Xray process.';
COMMENT ON TABLE reconciler.inbounds IS 'Desired: the tagged listeners of a node that hold our keys.';
COMMENT ON TABLE reconciler.placements IS 'Desired: which key belongs on which node.';
COMMENT ON TABLE reconciler.orders IS 'An operator''s word to the daemon, bound to exactly the keys that were shown.';
COMMENT ON TABLE reconciler.node_status IS 'Status: the last cycle of each node.';
COMMENT ON TABLE reconciler.promises IS 'Status: what a key is owed on a node, and until when.';
COMMENT ON TABLE reconciler.leases IS 'Status: which daemon acts on which node.';
COMMENT ON TABLE reconciler.usage IS 'Status: bytes of each key since it was made; never reset.';
COMMENT ON TABLE reconciler.usage_periods IS 'Where counting against the limit began.';
COMMENT ON TABLE reconciler.usage_checkpoints IS 'Status: the last cumulative reading per boot of a node.';
COMMENT ON TABLE reconciler.source IS 'One row: our mark on every node, and what tells this database from its copies.';
