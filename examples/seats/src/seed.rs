//! A made-up table of seats, as `seats seed --profile seats` makes it.

use tollgate_migration::ddl::Type::{Text, Time, Varchar};
use tollgate_migration::ddl::{TableSpec, column};
use tollgate_service::seed::{Fill, Maker, Seed};

use crate::SEATS;

/// The legacy table, filled.
pub static LEGACY: Seed = Seed {
    name: "seats",
    about: "Seats whose state is a word; --virtual-keys counts them",
    ledger: "",
    recorded: |_| Vec::new(),
    types: |_| Vec::new(),
    tables: |_| {
        vec![TableSpec {
            name: SEATS.to_owned(),
            columns: vec![
                column("id", Varchar(64)).not_null(),
                column("holder", Text).not_null(),
                column("state", Text),
                column("last_seen", Time),
            ],
            primary_key: vec!["id".to_owned()],
            foreign_keys: vec![],
            checks: vec![],
            indexes: vec![],
        }]
    },
    fills,
    planted: &[],
};

fn fills(maker: &Maker, seats: u32) -> Vec<Fill> {
    let columns = [
        ("id", maker.id("s", "i")),
        ("holder", maker.id("holder", "i")),
        ("state", maker.pick(1, &["on", "off"])),
        ("last_seen", maker.before("i")),
    ];
    vec![maker.insert(SEATS, seats, &columns, "1 = 1")]
}
