\set key random(1, :keys)
UPDATE governance_budgets SET current_usage = current_usage + 0.01 WHERE id = 'budget-vk-' || lpad((:key)::text, 7, '0');
UPDATE governance_virtual_keys SET updated_at = now() WHERE id = 'vk-' || lpad((:key)::text, 7, '0');
