//! Names of variables that bypass the platform's metered proxy (`docs/upstream/molecule.md` §B4).

/// They are kept from a workspace that the platform
/// pays for. Names are compared exactly; for secrets, trimmed and in upper case.
pub const BYPASS_KEYS: [&str; 23] = [
    "AI_GATEWAY_API_KEY",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ARCEEAI_API_KEY",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CODEX_AUTH_JSON",
    "DASHSCOPE_API_KEY",
    "DEEPSEEK_API_KEY",
    "GEMINI_API_KEY",
    "GLM_API_KEY",
    "HERMES_CUSTOM_API_KEY",
    "HERMES_CUSTOM_BASE_URL",
    "HF_TOKEN",
    "KIMI_API_KEY",
    "KIMI_CN_API_KEY",
    "MINIMAX_API_KEY",
    "MINIMAX_CN_API_KEY",
    "NOUS_API_KEY",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENROUTER_API_KEY",
    "XAI_API_KEY",
    "ZAI_API_KEY",
];
