-- Multi-budget by hand, with the gateway stopped: everything in as few statements as SQL allows, nothing that could be resumed.
SET jit = off;
ALTER TABLE governance_budgets ADD COLUMN virtual_key_id varchar(255), ADD COLUMN provider_config_id bigint;
ALTER TABLE governance_virtual_keys ADD COLUMN calendar_aligned boolean DEFAULT false;
UPDATE governance_budgets b SET virtual_key_id = r.id FROM governance_virtual_keys r WHERE b.id = r.budget_id;
UPDATE governance_budgets b SET provider_config_id = r.id
    FROM governance_virtual_key_provider_configs r WHERE b.id = r.budget_id AND b.virtual_key_id IS NULL;
UPDATE governance_virtual_keys v SET calendar_aligned = true
    FROM (SELECT DISTINCT COALESCE(b.virtual_key_id, p.virtual_key_id) AS id FROM governance_budgets b
          LEFT JOIN governance_virtual_key_provider_configs p ON p.id = b.provider_config_id WHERE b.calendar_aligned) f
    WHERE f.id = v.id;
CREATE INDEX ON governance_budgets (virtual_key_id);
CREATE INDEX ON governance_budgets (provider_config_id);
CREATE INDEX ON governance_virtual_key_provider_configs (virtual_key_id);
ALTER TABLE governance_budgets
    ADD FOREIGN KEY (virtual_key_id) REFERENCES governance_virtual_keys (id) ON DELETE CASCADE,
    ADD FOREIGN KEY (provider_config_id) REFERENCES governance_virtual_key_provider_configs (id) ON DELETE CASCADE,
    ADD CHECK (virtual_key_id IS NULL OR provider_config_id IS NULL);
ALTER TABLE governance_virtual_keys DROP COLUMN budget_id;
ALTER TABLE governance_virtual_key_provider_configs DROP COLUMN budget_id;
ALTER TABLE governance_budgets DROP COLUMN calendar_aligned;
