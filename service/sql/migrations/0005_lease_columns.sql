-- A lease has a holder and an end, or neither. The one rule that compares two columns, and so no domain's.
ALTER TABLE sessions ADD CHECK ((lease_holder IS NULL) = (lease_expires IS NULL));
