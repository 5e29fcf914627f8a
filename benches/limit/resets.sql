-- Windows that are over, where all that are due began long ago: the rows are written once, and nobody is asked twice.
SET jit = off;
UPDATE governance_budgets SET current_usage = 0, last_reset = now() WHERE last_reset < now() - interval '32 days';
UPDATE governance_rate_limits SET token_current_usage = 0, token_last_reset = now(), request_current_usage = 0, request_last_reset = now()
    WHERE token_last_reset < now() - interval '32 days';
