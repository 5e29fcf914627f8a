//! Troubles of the environment, by code.

use crate::report::{Finding, Severity};

/// A trouble of the environment, or of the version that the gateway stands at.
pub struct Trouble {
    /// Its stable code.
    pub code: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// One line.
    pub title: &'static str,
    /// What would happen.
    pub effect: &'static str,
    /// What resolves it.
    pub resolve: &'static str,
}

/// Every one of them, by code.
pub(crate) const TROUBLES: &[Trouble] = &[
    Trouble {
        code: "E001",
        severity: Severity::Blocking,
        title: "row-level security hides rows from this role",
        effect: "what a policy hides would be taken for absent: owners, keys and usage would be lost",
        resolve: "use a role with BYPASSRLS, or the tables' owner where row security is not forced",
    },
    Trouble {
        code: "E002",
        severity: Severity::Blocking,
        title: "this role may not do what a pending step needs",
        effect: "the step would fail half-way",
        resolve: "run as the tables' owner (or a member of that role), with CREATE on the schema",
    },
    Trouble {
        code: "E003",
        severity: Severity::Blocking,
        title: "an event trigger or a publication will stop a step",
        effect: "the step would fail half-way",
        resolve: "disable the event trigger for the migration, or give the table a replica identity",
    },
    Trouble {
        code: "E004",
        severity: Severity::Blocking,
        title: "the tables are in another schema than the one that is used",
        effect: "new tables here would hide the gateway's own: it would find none of its rows",
        resolve: "name the schema in the address: ?schema=NAME",
    },
    Trouble {
        code: "E005",
        severity: Severity::Warning,
        title: "a foreign key names a table that does not exist",
        effect: "a rebuild by rename left it; the rows have their parents, but nothing keeps them so, and their next write may fail",
        resolve: "`tollgate migrate up` repairs it where a step rebuilds the table, `tollgate schema repair` elsewhere; delete no row",
    },
    Trouble {
        code: "E006",
        severity: Severity::Blocking,
        title: "the gateway's ledger records a migration whose work is not there",
        effect: "what the gateway believes and what the schema is are two things; nothing can be built on either",
        resolve: "bring the schema to what the ledger says, with the gateway's own means or from a backup",
    },
    Trouble {
        code: "E007",
        severity: Severity::Blocking,
        title: "the ledger that is here is not one of this track's gateway",
        effect: "the tables would stand in another product's database, and its next migration may meet them",
        resolve: "name the right database, schema or --track; an embedding program keeps its own ledger in a schema of its own",
    },
    Trouble {
        code: "E008",
        severity: Severity::Warning,
        title: "an earlier Tollgate made what is the gateway's own to make",
        effect: "the gateway's migration will find it in another shape, or fail on it at its next boot",
        resolve: "`tollgate schema repair` drops it where it is empty",
    },
];

impl Trouble {
    /// It, as a finding about a table: what was found there, piece by piece.
    pub fn found(&self, table: &str, what: Vec<String>) -> Finding {
        Finding {
            code: self.code.to_owned(),
            severity: self.severity,
            title: self.title.to_owned(),
            table: table.to_owned(),
            column: None,
            rows: what.len() as u64,
            sample_ids: what,
            effect: self.effect.to_owned(),
            resolve: self.resolve.to_owned(),
        }
    }
}

/// What a version of the gateway means for a track.
pub struct VersionTrouble {
    /// What is said of it.
    pub trouble: Trouble,
    /// Whether nothing else can be asked of the database then.
    pub contradicts: bool,
    /// Whether rows may be written all the same: what it forbids is the track's migrations alone.
    pub spares_rows: bool,
}

/// A trouble of the list, as a finding.
pub(crate) fn finding(code: &'static str, table: &str, what: Vec<String>) -> Finding {
    const UNKNOWN: Trouble = Trouble {
        code: "",
        severity: Severity::Blocking,
        title: "",
        effect: "",
        resolve: "",
    };
    let trouble = TROUBLES
        .iter()
        .find(|trouble| trouble.code == code)
        .unwrap_or(&UNKNOWN);
    trouble.found(table, what)
}
