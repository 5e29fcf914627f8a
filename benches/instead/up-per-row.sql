-- What a program does that loads every owner and writes its budget: a loop of single rows, here without a network between.
SET jit = off;
ALTER TABLE governance_budgets ADD COLUMN virtual_key_id varchar(255), ADD COLUMN provider_config_id bigint;
ALTER TABLE governance_virtual_keys ADD COLUMN calendar_aligned boolean DEFAULT false;
DO $$
DECLARE r record; aligned boolean;
BEGIN
    FOR r IN SELECT id, budget_id FROM governance_virtual_keys WHERE budget_id <> '' LOOP
        UPDATE governance_budgets SET virtual_key_id = r.id WHERE id = r.budget_id RETURNING calendar_aligned INTO aligned;
        IF aligned THEN UPDATE governance_virtual_keys SET calendar_aligned = true WHERE id = r.id; END IF;
    END LOOP;
    FOR r IN SELECT id, budget_id, virtual_key_id FROM governance_virtual_key_provider_configs WHERE budget_id <> '' LOOP
        UPDATE governance_budgets SET provider_config_id = r.id WHERE id = r.budget_id RETURNING calendar_aligned INTO aligned;
        IF aligned THEN UPDATE governance_virtual_keys SET calendar_aligned = true WHERE id = r.virtual_key_id AND NOT calendar_aligned; END IF;
    END LOOP;
END $$;
CREATE INDEX ON governance_budgets (virtual_key_id);
CREATE INDEX ON governance_budgets (provider_config_id);
ALTER TABLE governance_virtual_keys DROP COLUMN budget_id;
ALTER TABLE governance_virtual_key_provider_configs DROP COLUMN budget_id;
ALTER TABLE governance_budgets DROP COLUMN calendar_aligned;
