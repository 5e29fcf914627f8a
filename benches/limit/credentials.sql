-- Credentials follow grants, each table in one pass.
SET jit = off;
CREATE TEMPORARY TABLE granted AS
    SELECT g.virtual_key_id, c.client_id FROM governance_virtual_key_mcp_configs g JOIN config_mcp_clients c ON c.id = g.mcp_client_id;
CREATE INDEX ON granted (virtual_key_id, client_id);
ANALYZE granted;
DO $$
DECLARE credentials text; flows text;
BEGIN
    FOR credentials, flows IN VALUES ('oauth_user_tokens', 'oauth_user_sessions'),
        ('mcp_per_user_header_credentials', 'mcp_per_user_header_flows') LOOP
        EXECUTE format('UPDATE %I r SET status = CASE r.status WHEN ''active'' THEN ''orphaned'' ELSE ''active'' END, updated_at = now()
            WHERE auth_mode = ''vk'' AND virtual_key_id <> '''' AND status IN (''active'', ''orphaned'') AND (status = ''orphaned'') = (
            EXISTS (SELECT 1 FROM granted g WHERE g.virtual_key_id = r.virtual_key_id AND g.client_id = r.mcp_client_id)
            OR EXISTS (SELECT 1 FROM config_mcp_clients c WHERE c.client_id = r.mcp_client_id AND c.allow_on_all_virtual_keys))', credentials);
        EXECUTE format('DELETE FROM %I r WHERE flow_mode = ''vk'' AND virtual_key_id <> '''' AND status = ''pending''
            AND NOT EXISTS (SELECT 1 FROM granted g WHERE g.virtual_key_id = r.virtual_key_id AND g.client_id = r.mcp_client_id)
            AND NOT EXISTS (SELECT 1 FROM config_mcp_clients c WHERE c.client_id = r.mcp_client_id AND c.allow_on_all_virtual_keys)', flows);
    END LOOP;
END $$;
