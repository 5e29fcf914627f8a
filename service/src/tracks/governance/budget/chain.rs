//! Which budgets stand above a request, in the order in which they are asked (`docs/upstream/bifrost.md` §3.4).

use chrono::{DateTime, SecondsFormat, Utc};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};
use serde::Serialize;
use tollgate_migration::Dialect;
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

use super::Asked;
use super::amount::Amount;
use super::schema::{CUSTOMERS, Schema, TEAMS};
use super::window::{Alignment, Due, Unit, Window};
use crate::instant;
use crate::tracks::governance::shape::{MODEL_CONFIGS, PROVIDERS};

/// A budget of the chain, as it is at an instant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Standing {
    /// The budget.
    pub budget_id: String,
    /// Whose it is: `provider openai`, `model_config m-1`, `provider_config 7`, `virtual_key vk-1`, `team t-1` or `customer c-1`.
    pub owner: String,
    /// The limit, in the gateway's currency.
    pub max_limit: Amount,
    /// What counts against it now: nothing where its window is over.
    pub current_usage: Amount,
    /// The reset duration, as it is stored.
    pub reset_duration: String,
    /// Whether it follows the calendar: its owner's flag is on, and its duration may.
    pub calendar_aligned: bool,
    /// When it counts from zero again: RFC 3339; `None` where the duration cannot be read, so never.
    pub resets_at: Option<String>,
    /// Whether it lets a request through.
    pub allows: bool,
    /// Whether it lets none through, whatever it costs.
    #[serde(skip)]
    pub is_spent: bool,
}

/// A row of the chain.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) id: String,
    owner: String,
    limit: Amount,
    /// The stored limit is none.
    no_number: bool,
    usage: Amount,
    spent: bool,
    spent_with_cost: bool,
    spent_by_cost: bool,
    last_reset: Last,
    word: String,
    alignment: Alignment,
}

/// When a window began.
#[derive(Clone, Copy, Debug)]
enum Last {
    Never,
    At(DateTime<Utc>),
    /// A text that is no time: never taken for past.
    Unreadable,
}

impl Link {
    fn read(row: &QueryResult, dialect: Dialect) -> Result<Self, DbErr> {
        let text = |name: &str| row.try_get::<Option<String>>("", name);
        let flag = |name: &str| Ok::<_, DbErr>(row.try_get::<Option<i32>>("", name)? == Some(1));
        let no_number = flag("no_number")?;
        let last_reset = match text("last_reset")? {
            None => Last::Never,
            Some(written) => instant::parse(&written).map_or(Last::Unreadable, Last::At),
        };
        Ok(Self {
            id: row.try_get("", "id")?,
            owner: text("owner")?.unwrap_or_default(),
            limit: if no_number {
                Amount::no_number()
            } else {
                Amount::read(row, "max_limit", dialect)?
            },
            no_number,
            usage: Amount::read(row, "usage", dialect)?,
            spent: flag("spent")?,
            spent_with_cost: flag("spent_with_cost")?,
            spent_by_cost: flag("spent_by_cost")?,
            last_reset,
            word: text("word")?.unwrap_or_default(),
            alignment: match (flag("aligned")?, flag("turned_on")?) {
                (false, _) => Alignment::Off,
                (true, false) => Alignment::On,
                (true, true) => Alignment::TurnedOn,
            },
        })
    }

    /// What is due; nothing where nobody can say, so that nothing is reopened.
    pub(super) fn due(&self, now: DateTime<Utc>) -> Due {
        let began = match self.last_reset {
            Last::Never => None,
            Last::At(at) => Some(at),
            Last::Unreadable => return Due::Nothing,
        };
        Window::parse(&self.word).map_or(Due::Nothing, |window| {
            window.due(began, self.alignment, now)
        })
    }

    /// What is stored, whether the window is over or not.
    pub(super) fn stored_usage(&self) -> Amount {
        self.usage.clone()
    }

    /// The same with nothing spent, in a window that begins now.
    pub(super) fn begun(&self, now: DateTime<Utc>) -> Self {
        Self {
            usage: Amount::zero(),
            spent: self.limit.is_nothing(),
            last_reset: Last::At(self.starts(now)),
            ..self.clone()
        }
    }

    /// When the window begins that an instant lies in: of the calendar, or with that instant.
    pub(super) fn starts(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        Window::parse(&self.word)
            .and_then(|window| window.aligned_to(self.alignment))
            .map_or(now, |unit| unit.start(now))
    }

    fn resets_at(&self, now: DateTime<Utc>) -> Option<String> {
        let window = Window::parse(&self.word)?;
        let began = match self.last_reset {
            Last::Never => None,
            Last::At(at) => Some(at),
            Last::Unreadable => return None,
        };
        let end = window.ends(began, self.alignment, now);
        Some(end.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }

    /// How it stands for a request, of a known cost or of one that nobody knows yet.
    pub(super) fn standing(&self, now: DateTime<Utc>, costs: bool) -> Standing {
        let over = matches!(self.due(now), Due::Reset(_));
        // A limit of zero always blocks, an empty window too.
        let limit_is_zero = self.limit.is_nothing();
        // What is compared with no number is neither below nor above it, and a limit that nobody can read is none to pass.
        let allows = if self.no_number {
            false
        } else if over {
            !(limit_is_zero || (costs && self.spent_by_cost))
        } else {
            !(self.spent || (costs && self.spent_with_cost))
        };
        Standing {
            budget_id: self.id.clone(),
            owner: self.owner.clone(),
            max_limit: self.limit.clone(),
            current_usage: if over {
                Amount::zero()
            } else {
                self.usage.clone()
            },
            reset_duration: self.word.clone(),
            calendar_aligned: Window::parse(&self.word)
                .is_some_and(|window| window.aligned_to(self.alignment).is_some()),
            resets_at: self.resets_at(now),
            allows,
            is_spent: self.no_number || if over { limit_is_zero } else { self.spent },
        }
    }
}

/// When the calendar's window of a budget `b` began that is open at an instant; NULL where its duration does not align.
fn period(dialect: Dialect, now: DateTime<Utc>) -> String {
    let arms: String = Unit::ALL
        .into_iter()
        .map(|unit| {
            let (exact, alias) = unit.words();
            format!(
                " WHEN b.reset_duration = '{exact}' OR lower(b.reset_duration) = '{alias}' THEN {}",
                instant::literal(dialect, unit.start(now))
            )
        })
        .collect();
    format!("(CASE{arms} END)")
}

/// The columns of a budget `b`. `cost` is the parameter that holds an expected cost.
fn columns(schema: &Schema, owner: &str, cost: &str, now: DateTime<Utc>) -> String {
    let dialect = schema.dialect;
    let usage = "COALESCE(b.current_usage, 0)";
    let cost = match dialect {
        Dialect::Postgres => format!("CAST({cost} AS numeric)"),
        Dialect::Sqlite => format!("CAST({cost} AS real)"),
    };
    let last = instant::as_text(dialect, "b.last_reset");
    let last = match dialect {
        // What never comes is no time of a window either, and has no spelling.
        Dialect::Postgres => {
            format!("CASE WHEN b.last_reset = 'infinity' THEN 'infinity' ELSE {last} END")
        }
        Dialect::Sqlite => last,
    };
    let flag = |condition: &str| format!("CASE WHEN {condition} THEN 1 ELSE 0 END");
    let no_number = match dialect {
        Dialect::Postgres => {
            "b.max_limit IS NULL OR CAST(b.max_limit AS text) IN ('NaN', 'Infinity', '-Infinity')"
        }
        Dialect::Sqlite => {
            "typeof(b.max_limit) NOT IN ('real', 'integer') OR abs(b.max_limit) = 9e999"
        }
    };
    let limit = schema.limit();
    let alignments = schema.alignment_of_budgets().row_by_row();
    // A gateway whose windows begin elsewhere counts by their length alone: nothing is let through before that is over.
    let aligned = if schema.is_anchored() {
        ["0".to_owned(), "0".to_owned()]
    } else {
        [
            flag(&alignments.is_on()),
            flag(&alignments.may_be_on_since(&period(dialect, now))),
        ]
    };
    format!(
        "b.id AS id, {owner} AS owner, {} AS max_limit, {} AS usage, \
         {} AS no_number, {} AS spent, {} AS spent_with_cost, {} AS spent_by_cost, {last} AS last_reset, {} AS word, \
         {} AS aligned, {} AS turned_on",
        Amount::expression(dialect, &format!("COALESCE({limit}, 0)")),
        Amount::expression(dialect, usage),
        flag(no_number),
        flag(&format!("{usage} >= {limit}")),
        flag(&format!("{usage} + {cost} > {limit}")),
        flag(&format!("{cost} > {limit}")),
        schema.duration(),
        aligned[0],
        aligned[1],
    )
}

/// Whether the key (the first parameter) opens nothing: 1 or 0, and no row where there is no such key.
pub(super) fn closed(schema: &Schema, now: DateTime<Utc>) -> String {
    format!(
        "SELECT CASE WHEN {} THEN 1 ELSE 0 END FROM {VIRTUAL_KEYS} v WHERE v.id = {}",
        schema.is_closed(now),
        schema.dialect.parameter(1)
    )
}

/// The budgets above a request.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) links: Vec<Link>,
    /// Whether the key opens nothing; unknown where no budget stands above it.
    pub(super) closed: Option<bool>,
}

/// What a request is asked about: the first parameter is the virtual key, then the provider, a cost, the model, and the model
/// without what stands before its last slash.
#[derive(Clone, Copy, Debug)]
struct Question<'a> {
    schema: &'a Schema,
    /// One provider, or every one that the key has.
    provider: bool,
    /// What a request of this model meets, or every model's.
    every_model: bool,
    now: DateTime<Utc>,
}

impl Question<'_> {
    fn p(&self, n: usize) -> String {
        self.schema.dialect.parameter(n)
    }

    fn sql(&self) -> String {
        let mut arms = self.arms();
        if arms.is_empty() {
            // Nothing here says whose a budget is.
            arms.push(self.arm("99", "''", "", "1 = 0"));
        }
        // Every parameter has its place, whether or not an arm asks for it.
        let all: Vec<String> = (2..=5)
            .map(|n| match self.schema.dialect {
                Dialect::Postgres => format!("CAST({} AS text) IS NOT NULL", self.p(n)),
                Dialect::Sqlite => format!("{} IS NOT NULL", self.p(n)),
            })
            .collect();
        // Found first, and looked at once each: the columns ask more tables than the search does.
        format!(
            "WITH above AS MATERIALIZED ({}) SELECT {}, ({}) AS closed FROM above a JOIN {BUDGETS} b ON b.id = a.id \
             WHERE {} ORDER BY a.rank, b.id",
            arms.join(" UNION ALL "),
            columns(self.schema, "a.owner", &self.p(3), self.now),
            closed(self.schema, self.now),
            all.join(" AND ")
        )
    }

    /// The budgets of one level: its rank, its name, how it is reached from the key `v`, and which budgets `b` are its.
    fn arm(&self, rank: &str, owner: &str, joins: &str, condition: &str) -> String {
        format!(
            "SELECT {rank} AS rank, {owner} AS owner, b.id AS id FROM {VIRTUAL_KEYS} v {joins} \
             JOIN {BUDGETS} b ON {condition} WHERE v.id = {}",
            self.p(1)
        )
    }

    /// Each level of the chain, by either way in which it may own budgets, in the order of `docs/upstream/bifrost.md` §13.1.
    fn arms(&self) -> Vec<String> {
        let schema = self.schema;
        let free = schema.is_free();
        let mut arms = Vec::new();
        let mut arm = |rank: &str, owner: &str, joins: &str, condition: &str| {
            arms.push(self.arm(rank, owner, joins, condition));
        };
        if schema.has(PROVIDERS, "budget_id") && schema.has(PROVIDERS, "name") {
            let of = format!("JOIN {PROVIDERS} p ON {}", self.is_wanted("p.name"));
            arm("0", "'provider ' || p.name", &of, "b.id = p.budget_id");
        }
        if let Some(owned) = self.owned_by_model() {
            let (global, own) = self.scopes();
            arm(
                &format!("1 + {TIER}"),
                "'model_config ' || m.id",
                &self.models(global),
                owned,
            );
            if let Some(own) = own {
                arm(
                    &format!("7 + {TIER}"),
                    "'model_config ' || m.id",
                    &self.models(own),
                    owned,
                );
            }
        }
        let wanted = if self.provider {
            format!(" AND c.provider = {}", self.p(2))
        } else {
            String::new()
        };
        let configs = format!("JOIN {PROVIDER_CONFIGS} c ON c.virtual_key_id = v.id{wanted}");
        let of_config = "'provider_config ' || CAST(c.id AS text)";
        if schema.has(BUDGETS, "provider_config_id") {
            arm("5", of_config, &configs, "b.provider_config_id = c.id");
        }
        if schema.refers(PROVIDER_CONFIGS) {
            arm(
                "5",
                of_config,
                &configs,
                &format!("b.id = c.budget_id{free}"),
            );
        }
        let of_key = "'virtual_key ' || v.id";
        if schema.has(BUDGETS, "virtual_key_id") {
            arm("6", of_key, "", "b.virtual_key_id = v.id");
        }
        if schema.refers(VIRTUAL_KEYS) {
            arm("6", of_key, "", &format!("b.id = v.budget_id{free}"));
        }
        arms.extend(self.groups());
        arms
    }

    /// The team, its customer, and the key's own customer.
    fn groups(&self) -> Vec<String> {
        let schema = self.schema;
        let mut arms = Vec::new();
        let mut arm = |rank: &str, owner: &str, joins: &str, condition: &str| {
            arms.push(self.arm(rank, owner, joins, condition));
        };
        let team = format!("JOIN {TEAMS} t ON t.id = v.team_id");
        if schema.has(VIRTUAL_KEYS, "team_id") && schema.has(TEAMS, "id") {
            if schema.has(BUDGETS, "team_id") {
                arm("12", "'team ' || t.id", &team, "b.team_id = t.id");
            }
            if schema.has(TEAMS, "budget_id") {
                arm("12", "'team ' || t.id", &team, "b.id = t.budget_id");
            }
        }
        let through_team = format!("{team} JOIN {CUSTOMERS} o ON o.id = t.customer_id");
        let own = format!("JOIN {CUSTOMERS} o ON o.id = v.customer_id");
        for (rank, joins, table, column) in [
            ("13", &through_team, TEAMS, "customer_id"),
            ("14", &own, VIRTUAL_KEYS, "customer_id"),
        ] {
            if !(schema.has(table, column) && schema.has(CUSTOMERS, "id")) {
                continue;
            }
            if schema.has(BUDGETS, "customer_id") {
                arm(rank, "'customer ' || o.id", joins, "b.customer_id = o.id");
            }
            if schema.has(CUSTOMERS, "budget_id") {
                arm(rank, "'customer ' || o.id", joins, "b.id = o.budget_id");
            }
        }
        arms
    }

    /// That a provider's name is the request's, or one that the key has.
    fn is_wanted(&self, name: &str) -> String {
        if self.provider {
            format!("{name} = {}", self.p(2))
        } else {
            format!(
                "{name} IN (SELECT c.provider FROM {PROVIDER_CONFIGS} c WHERE c.virtual_key_id = v.id)"
            )
        }
    }

    /// How a budget is a model config's. Where budgets say it, the model config's own column says nothing any more.
    fn owned_by_model(&self) -> Option<&'static str> {
        let has = |table: &str, column: &str| self.schema.has(table, column);
        if !(has(MODEL_CONFIGS, "model_name") && has(MODEL_CONFIGS, "provider")) {
            None
        } else if has(BUDGETS, "model_config_id") {
            Some("b.model_config_id = m.id")
        } else {
            has(MODEL_CONFIGS, "budget_id").then_some("b.id = m.budget_id")
        }
    }

    /// Which model configs are everybody's, and which the key's.
    fn scopes(&self) -> (&'static str, Option<&'static str>) {
        if self.schema.has(MODEL_CONFIGS, "scope") {
            (
                "COALESCE(m.scope, 'global') = 'global'",
                Some("m.scope = 'virtual_key' AND m.scope_id = v.id"),
            )
        } else {
            ("1 = 1", None)
        }
    }

    /// The model configs `m` that a request meets. A name counts with and without what stands before its last slash, on either
    /// side: one that the gateway would not ask blocks rather than one that it asks lets through.
    fn models(&self, scope: &str) -> String {
        let provider = self.is_wanted("m.provider");
        let model = if self.every_model {
            "1 = 1".to_owned()
        } else {
            let (model, base) = (self.p(4), self.p(5));
            let ends = match self.schema.dialect {
                Dialect::Postgres => {
                    format!("right(m.model_name, length({base}) + 1) = '/' || {base}")
                }
                Dialect::Sqlite => {
                    format!("substr(m.model_name, -length({base}) - 1) = '/' || {base}")
                }
            };
            format!(
                "(m.model_name = '*' OR m.model_name IN ({model}, {base}) OR ({base} <> '' AND {ends}))"
            )
        };
        format!(
            "JOIN {MODEL_CONFIGS} m ON {scope} AND {model} AND (COALESCE(m.provider, '') = '' OR {provider})"
        )
    }
}

/// The narrower of two model configs is asked first: of a model on a provider, of a model, of a provider, of all.
const TIER: &str = "CASE WHEN m.model_name <> '*' THEN 0 ELSE 2 END + CASE WHEN COALESCE(m.provider, '') <> '' THEN 0 ELSE 1 END";

/// The budgets above a request, each once, in the order in which they are asked. Their number is bounded by what hangs on
/// one virtual key.
pub(super) async fn chain<C: ConnectionTrait>(
    connection: &C,
    schema: &Schema,
    asked: &Asked<'_>,
    every_model: bool,
    cost: &str,
    now: DateTime<Utc>,
) -> Result<Chain, DbErr> {
    let question = Question {
        schema,
        provider: asked.provider.is_some(),
        every_model,
        now,
    };
    let model = asked.model.unwrap_or_default();
    let base = model.rsplit('/').next().unwrap_or_default();
    let values: [Value; 5] = [
        asked.virtual_key.into(),
        asked.provider.unwrap_or_default().into(),
        cost.into(),
        model.into(),
        base.into(),
    ];
    let mut chain = Chain::default();
    for row in connection
        .query_all_raw(Statement::from_sql_and_values(
            schema.dialect.backend(),
            question.sql(),
            values,
        ))
        .await?
    {
        let link = Link::read(&row, schema.dialect)?;
        chain.closed = row
            .try_get::<Option<i32>>("", "closed")?
            .map(|closed| closed == 1);
        if !chain.links.iter().any(|known| known.id == link.id) {
            chain.links.push(link);
        }
    }
    Ok(chain)
}

/// The same rows, locked in the order of their ids, as they are now.
pub(super) async fn locked<C: ConnectionTrait>(
    connection: &C,
    schema: &Schema,
    links: &[Link],
    now: DateTime<Utc>,
) -> Result<Vec<Link>, DbErr> {
    let ids = links.iter().map(|link| link.id.as_str());
    let mut found = by_ids(connection, schema, ids, true, now).await?;
    for link in &mut found {
        if let Some(known) = links.iter().find(|known| known.id == link.id) {
            link.owner.clone_from(&known.owner);
        }
    }
    Ok(found)
}

/// Budgets by their ids, in their order, as they are now; locked where they are to be written.
pub(super) async fn by_ids<'a, C: ConnectionTrait>(
    connection: &C,
    schema: &Schema,
    ids: impl IntoIterator<Item = &'a str>,
    lock: bool,
    now: DateTime<Utc>,
) -> Result<Vec<Link>, DbErr> {
    let dialect = schema.dialect;
    let lock = match dialect {
        Dialect::Postgres if lock => "FOR NO KEY UPDATE OF b",
        _ => "",
    };
    let mut values: Vec<Value> = vec!["0".into()];
    let ids = parameters(dialect, ids, &mut values);
    let sql = format!(
        "SELECT {} FROM {BUDGETS} b WHERE b.id IN ({ids}) ORDER BY b.id {lock}",
        columns(schema, "''", &dialect.parameter(1), now),
    );
    connection
        .query_all_raw(Statement::from_sql_and_values(
            dialect.backend(),
            sql,
            values,
        ))
        .await?
        .iter()
        .map(|row| Link::read(row, dialect))
        .collect()
}

/// The ids of budgets as parameters, so that the statement of every chain of a length is the same text, prepared once.
pub(super) fn parameters<'a>(
    dialect: Dialect,
    ids: impl IntoIterator<Item = &'a str>,
    values: &mut Vec<Value>,
) -> String {
    let places: Vec<String> = ids
        .into_iter()
        .map(|id| {
            values.push(id.into());
            dialect.parameter(values.len())
        })
        .collect();
    places.join(", ")
}
