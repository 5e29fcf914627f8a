//! What a workspace's container may have in its environment (`docs/upstream/molecule.md` §B4).

use super::bypass::BYPASS_KEYS;
use super::mode::Mode;

/// The name under which the resolved mode is always told.
pub const RESOLVED: &str = "MOLECULE_LLM_BILLING_MODE_RESOLVED";

/// The platform's proxy, from the server's own environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    base: Option<String>,
    token: Option<String>,
    anthropic_base: Option<String>,
    usage_url: Option<String>,
}

impl Proxy {
    /// Reads the settings through a look-up of environment variables. Blank is absent.
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| variable(name))
                // A line break would end the variable and begin another.
                .find(|value| !value.trim().is_empty() && !value.contains(['\n', '\r', '\0']))
        };
        Self {
            base: first(&["MOLECULE_LLM_BASE_URL", "OPENAI_BASE_URL"]),
            token: first(&["MOLECULE_LLM_USAGE_TOKEN", "OPENAI_API_KEY"]),
            anthropic_base: first(&["MOLECULE_LLM_ANTHROPIC_BASE_URL", "ANTHROPIC_BASE_URL"]),
            usage_url: first(&["MOLECULE_LLM_USAGE_URL"]),
        }
    }

    /// What is injected for a runtime; `None` where base or token is missing.
    fn variables(&self, runtime: &str) -> Option<Vec<(&'static str, String)>> {
        let (base, token) = (self.base.clone()?, self.token.clone()?);
        let mut set = vec![
            ("MOLECULE_LLM_BASE_URL", base.clone()),
            ("MOLECULE_LLM_USAGE_TOKEN", token.clone()),
        ];
        if let Some(anthropic) = &self.anthropic_base {
            set.push(("MOLECULE_LLM_ANTHROPIC_BASE_URL", anthropic.clone()));
        }
        if let Some(usage) = &self.usage_url {
            set.push(("MOLECULE_LLM_USAGE_URL", usage.clone()));
        }
        if !runtime.trim().eq_ignore_ascii_case("claude-code") {
            set.push(("OPENAI_API_KEY", token));
            set.push(("OPENAI_BASE_URL", base));
        } else if let Some(anthropic) = &self.anthropic_base {
            set.push(("ANTHROPIC_API_KEY", token));
            set.push(("ANTHROPIC_BASE_URL", anthropic.clone()));
        }
        Some(set)
    }
}

/// What is taken out and what is put in.
struct Edit {
    removed: &'static [&'static str],
    set: Vec<(&'static str, String)>,
    /// Whether the proxy's settings were missing where they are needed.
    unproxied: bool,
}

fn edit(mode: Mode, proxy: &Proxy, runtime: &str) -> Edit {
    let mut set = Vec::new();
    let mut unproxied = false;
    let platform = mode == Mode::PlatformManaged;
    if platform {
        match proxy.variables(runtime) {
            Some(variables) => set.extend(variables),
            None => unproxied = true,
        }
    }
    set.push((RESOLVED, mode.name().to_owned()));
    Edit {
        removed: if platform { &BYPASS_KEYS } else { &[] },
        set,
        unproxied,
    }
}

/// An environment as it may be, and whether the proxy's settings were missing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stripped<T> {
    /// The environment.
    pub environment: T,
    /// The mode is `platform_managed` and nothing could be injected.
    pub unproxied: bool,
}

/// Strips `KEY=VALUE` lines. Names are exact; lines keep their order, and every other byte stays.
pub fn strip_lines(input: &[u8], mode: Mode, proxy: &Proxy, runtime: &str) -> Stripped<Vec<u8>> {
    let Edit {
        removed,
        set,
        unproxied,
    } = edit(mode, proxy, runtime);
    let mut written = vec![false; set.len()];
    let mut environment = Vec::with_capacity(input.len());
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        // A bare name, without `=`, makes a container runtime take the variable from its host.
        let name = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => &line[..at],
            None => line.trim_ascii_end(),
        };
        let of = |known: &str| name == known.as_bytes();
        if let Some(position) = set.iter().position(|(known, _)| of(known)) {
            // It stands where it stood first, with its new value and the line's own ending. Whoever reads the
            // environment takes the last of several, so there is only one.
            if std::mem::replace(&mut written[position], true) {
                continue;
            }
            let (known, value) = &set[position];
            environment.extend_from_slice(format!("{known}={value}").as_bytes());
            if line.ends_with(b"\r\n") {
                environment.extend_from_slice(b"\r\n");
            } else if line.ends_with(b"\n") {
                environment.push(b'\n');
            }
        } else if !removed.iter().any(|known| of(known)) {
            environment.extend_from_slice(line);
        }
    }
    if !environment.is_empty() && !environment.ends_with(b"\n") {
        environment.push(b'\n');
    }
    for (_, (name, value)) in written.iter().zip(&set).filter(|(written, _)| !**written) {
        environment.extend_from_slice(format!("{name}={value}\n").as_bytes());
    }
    Stripped {
        environment,
        unproxied,
    }
}

/// Strips a JSON object of variables, which keeps its order.
pub fn strip_object(
    mut input: serde_json::Map<String, serde_json::Value>,
    mode: Mode,
    proxy: &Proxy,
    runtime: &str,
) -> Stripped<serde_json::Map<String, serde_json::Value>> {
    let Edit {
        removed,
        set,
        unproxied,
    } = edit(mode, proxy, runtime);
    input.retain(|name, _| {
        !removed.contains(&name.as_str()) || set.iter().any(|(known, _)| known == name)
    });
    for (name, value) in set {
        input.insert(name.to_owned(), value.into());
    }
    Stripped {
        environment: input,
        unproxied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> Proxy {
        Proxy::from(|name| match name {
            "MOLECULE_LLM_BASE_URL" => Some("https://proxy".to_owned()),
            "MOLECULE_LLM_USAGE_TOKEN" => Some("token".to_owned()),
            "ANTHROPIC_BASE_URL" => Some("https://anthropic".to_owned()),
            _ => None,
        })
    }

    fn stripped(input: &str, mode: Mode, proxy: &Proxy, runtime: &str) -> (String, bool) {
        let stripped = strip_lines(input.as_bytes(), mode, proxy, runtime);
        (
            String::from_utf8_lossy(&stripped.environment).into_owned(),
            stripped.unproxied,
        )
    }

    #[test]
    fn every_one_of_the_23_names_goes_and_other_spellings_stay() {
        for name in BYPASS_KEYS {
            let lower = name.to_lowercase();
            let input = format!(
                "A=1\n{name}=secret\n{lower}=kept\nX{name}=kept\n {name}=kept\nB={name}=2\n"
            );
            let (out, unproxied) = stripped(&input, Mode::PlatformManaged, &Proxy::default(), "");
            assert_eq!(
                out,
                format!(
                    "A=1\n{lower}=kept\nX{name}=kept\n {name}=kept\nB={name}=2\n{RESOLVED}=platform_managed\n"
                )
            );
            assert!(unproxied, "no settings, nothing injected");
        }
    }

    #[test]
    fn the_proxy_is_injected_by_runtime() {
        let (out, unproxied) = stripped(
            "OPENAI_API_KEY=own\r\nZ=1",
            Mode::PlatformManaged,
            &proxy(),
            "langgraph",
        );
        assert_eq!(
            out,
            format!(
                "OPENAI_API_KEY=token\r\nZ=1\nMOLECULE_LLM_BASE_URL=https://proxy\nMOLECULE_LLM_USAGE_TOKEN=token\n\
                 MOLECULE_LLM_ANTHROPIC_BASE_URL=https://anthropic\nOPENAI_BASE_URL=https://proxy\n{RESOLVED}=platform_managed\n"
            )
        );
        assert!(!unproxied);
        let (out, _) = stripped(
            "OPENAI_API_KEY=own\n",
            Mode::PlatformManaged,
            &proxy(),
            " Claude-Code ",
        );
        assert!(!out.contains("OPENAI_"), "{out}");
        assert!(
            out.contains("ANTHROPIC_API_KEY=token\nANTHROPIC_BASE_URL=https://anthropic\n"),
            "{out}"
        );
    }

    #[test]
    fn a_name_that_is_set_stands_once() {
        let input = "ANTHROPIC_BASE_URL=evil\nMOLECULE_LLM_BASE_URL=a\nHF_TOKEN\nMOLECULE_LLM_BASE_URL=evil\nANTHROPIC_BASE_URL=evil\nMOLECULE_LLM_BILLING_MODE_RESOLVED=byok\nMOLECULE_LLM_BILLING_MODE_RESOLVED=byok\n";
        let (out, _) = stripped(input, Mode::PlatformManaged, &proxy(), "claude-code");
        assert!(
            !out.contains("evil") && !out.contains("byok") && !out.contains("HF_TOKEN"),
            "{out}"
        );
        assert_eq!(out.matches("MOLECULE_LLM_BASE_URL=").count(), 1, "{out}");
        assert_eq!(
            out.matches("MOLECULE_LLM_BILLING_MODE_RESOLVED=").count(),
            1,
            "{out}"
        );
    }

    #[test]
    fn a_setting_with_a_line_break_is_none() {
        let broken = Proxy::from(|name| Some(format!("{name}\nX=1")));
        assert!(strip_lines(b"", Mode::PlatformManaged, &broken, "").unproxied);
    }

    #[test]
    fn own_keys_stay_where_they_are_the_workspaces() {
        for mode in [Mode::Byok, Mode::Disabled] {
            let input = "OPENAI_API_KEY=own\n# a comment\n\nANTHROPIC_BASE_URL=mine\n";
            let (out, unproxied) = stripped(input, mode, &proxy(), "");
            assert_eq!(out, format!("{input}{RESOLVED}={}\n", mode.name()));
            assert!(!unproxied);
        }
    }

    #[test]
    fn an_object_is_stripped_like_lines() {
        let input: serde_json::Map<String, serde_json::Value> =
            [("HF_TOKEN", "own"), ("hf_token", "kept"), ("PATH", "/bin")]
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into_iter()
                .collect();
        let out = strip_object(input, Mode::PlatformManaged, &Proxy::default(), "");
        assert!(!out.environment.contains_key("HF_TOKEN"));
        assert_eq!(out.environment["hf_token"], "kept");
        assert_eq!(out.environment[RESOLVED], "platform_managed");
        assert!(out.unproxied);
    }
}
