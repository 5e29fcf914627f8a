//! Random edits of a file against a plain count of what was used.

use super::*;

/// One edit of a file.
#[derive(Clone, Debug)]
enum Edit {
    Limit(usize, u32),
    Duration(usize, usize),
    AddBudget(usize, usize, u32),
    DropBudget(usize),
    DropList(usize),
    EmptyList(usize),
    Rename(usize, u32),
    Align(usize),
    AddKey(u32),
    DropKey(usize),
    AddConfig(usize, usize),
    DropConfigs(usize),
    Weigh(usize, u32),
}

const DURATIONS: [&str; 8] = ["1h", "12h", "1d", "24h", "7d", "1w", "1M", "1Y"];

/// Whether a list has a budget whose window is as long as that of a word.
fn has_length(list: &[Value], word: &str) -> bool {
    let length = |word: &str| match word {
        "24h" => "1d".to_owned(),
        "7d" => "1w".to_owned(),
        word => word.to_owned(),
    };
    list.iter()
        .any(|budget| length(budget["reset_duration"].as_str().unwrap()) == length(word))
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<usize>(), 1u32..500).prop_map(|(a, b)| Edit::Limit(a, b)),
        2 => (any::<usize>(), 0usize..8).prop_map(|(a, b)| Edit::Duration(a, b)),
        4 => (any::<usize>(), 0usize..8, 1u32..500).prop_map(|(a, b, c)| Edit::AddBudget(a, b, c)),
        2 => any::<usize>().prop_map(Edit::DropBudget),
        1 => any::<usize>().prop_map(Edit::DropList),
        1 => any::<usize>().prop_map(Edit::EmptyList),
        1 => (any::<usize>(), 0u32..9).prop_map(|(a, b)| Edit::Rename(a, b)),
        1 => any::<usize>().prop_map(Edit::Align),
        2 => (0u32..6).prop_map(Edit::AddKey),
        1 => any::<usize>().prop_map(Edit::DropKey),
        2 => (any::<usize>(), 0usize..3).prop_map(|(a, b)| Edit::AddConfig(a, b)),
        1 => any::<usize>().prop_map(Edit::DropConfigs),
        1 => (any::<usize>(), 0u32..100).prop_map(|(a, b)| Edit::Weigh(a, b)),
    ]
}

/// Every list of budgets in a file.
fn lists(file: &mut Value) -> Vec<&mut Vec<Value>> {
    let mut lists = Vec::new();
    for key in file["virtual_keys"].as_array_mut().unwrap() {
        let key = key.as_object_mut().unwrap();
        let mut both: Vec<&mut Value> = Vec::new();
        for (name, value) in key.iter_mut() {
            match name.as_str() {
                "budgets" => both.push(value),
                "provider_configs" => {
                    for config in value.as_array_mut().unwrap() {
                        both.extend(config.get_mut("budgets"));
                    }
                }
                _ => {}
            }
        }
        lists.extend(both.into_iter().filter_map(Value::as_array_mut));
    }
    lists
}

fn change(file: &mut Value, edit: &Edit, number: usize) {
    let keys = file["virtual_keys"].as_array().unwrap().len();
    let budget = |file: &mut Value, which: usize, act: &dyn Fn(&mut Vec<Value>, usize)| {
        let mut lists: Vec<&mut Vec<Value>> = lists(file)
            .into_iter()
            .filter(|list| !list.is_empty())
            .collect();
        if !lists.is_empty() {
            let place = which % lists.len();
            let inside = (which / 7) % lists[place].len();
            act(lists[place], inside);
        }
    };
    let key = |file: &mut Value, which: usize, act: &dyn Fn(&mut Value)| {
        if keys > 0 {
            act(&mut file["virtual_keys"][which % keys]);
        }
    };
    match edit {
        Edit::Limit(which, limit) => budget(file, *which, &|list, i| {
            list[i]["max_limit"] = json!(f64::from(*limit) / 4.0)
        }),
        Edit::Duration(which, duration) => budget(file, *which, &|list, i| {
            let word = DURATIONS[*duration];
            let others: Vec<Value> = (0..list.len())
                .filter(|other| *other != i)
                .map(|other| list[other].clone())
                .collect();
            if !has_length(&others, word) {
                list[i]["reset_duration"] = json!(word);
            }
        }),
        Edit::AddBudget(which, duration, limit) => {
            let mut lists = lists(file);
            if !lists.is_empty() {
                let place = which % lists.len();
                let word = DURATIONS[*duration];
                if !has_length(lists[place], word) {
                    let mut budget = json!({ "max_limit": limit, "reset_duration": word });
                    if limit % 2 == 0 {
                        budget["id"] = json!(format!("b-{number}"));
                    }
                    lists[place].push(budget);
                }
            }
        }
        Edit::DropBudget(which) => budget(file, *which, &|list, i| {
            list.remove(i);
        }),
        Edit::DropList(which) => key(file, *which, &|key| {
            key.as_object_mut().unwrap().remove("budgets");
        }),
        Edit::EmptyList(which) => key(file, *which, &|key| key["budgets"] = json!([])),
        Edit::Rename(which, name) => key(file, *which, &|key| {
            key["name"] = json!(format!("{} {name}", key["id"]))
        }),
        Edit::Align(which) => key(file, *which, &|key| {
            key["calendar_aligned"] = json!(key["calendar_aligned"] != json!(true))
        }),
        Edit::AddKey(which) => {
            let id = format!("vk-{which}");
            let keys = file["virtual_keys"].as_array_mut().unwrap();
            if keys.iter().all(|key| key["id"] != id.as_str()) {
                keys.push(json!({ "id": id, "name": format!("{id} new"), "budgets": [{ "max_limit": 9, "reset_duration": "1d" }], "provider_configs": [] }));
            }
        }
        Edit::DropKey(which) => {
            if keys > 0 {
                file["virtual_keys"]
                    .as_array_mut()
                    .unwrap()
                    .remove(which % keys);
            }
        }
        Edit::AddConfig(which, provider) => key(file, *which, &|key| {
            let provider = ["openai", "anthropic", "bedrock"][*provider];
            if !key["provider_configs"].is_array() {
                key["provider_configs"] = json!([]);
            }
            let configs = key["provider_configs"].as_array_mut().unwrap();
            if configs.iter().all(|config| config["provider"] != provider) {
                configs.push(json!({ "provider": provider, "budgets": [{ "max_limit": 4, "reset_duration": "1w" }] }));
            }
        }),
        Edit::DropConfigs(which) => key(file, *which, &|key| key["provider_configs"] = json!([])),
        Edit::Weigh(which, weight) => key(file, *which, &|key| {
            if let Some(configs) = key["provider_configs"].as_array_mut() {
                for config in configs {
                    config["weight"] = json!(f64::from(*weight) / 8.0);
                }
            }
        }),
    }
}

/// What the file says of the budgets whose list is present: owner, duration and limit.
fn said(file: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let mut say = |owner: &str, list: &Value| {
        for budget in list.as_array().into_iter().flatten() {
            said.push(format!(
                "{owner} {} {}",
                budget["reset_duration"].as_str().unwrap(),
                budget["max_limit"].as_f64().unwrap()
            ));
        }
    };
    for key in file["virtual_keys"].as_array().unwrap() {
        let id = key["id"].as_str().unwrap();
        say(id, &key["budgets"]);
        for config in key["provider_configs"].as_array().into_iter().flatten() {
            say(
                &format!("{id}/{}", config["provider"].as_str().unwrap()),
                &config["budgets"],
            );
        }
    }
    said.sort();
    said
}

impl World {
    /// The usage of every budget.
    async fn usage(&self) -> BTreeMap<String, f64> {
        self.database
            .column("SELECT id || '|' || CAST(COALESCE(current_usage, 0) AS text) FROM governance_budgets")
            .await
            .into_iter()
            .map(|row| {
                let (id, usage) = row.rsplit_once('|').unwrap();
                (id.to_owned(), usage.parse().unwrap())
            })
            .collect()
    }

    /// A file that is edited ten times, with usage recorded in between.
    async fn edited(&self, edits: &[Edit]) {
        let mut file = one();
        self.apply(file.clone()).await;
        for (number, edit) in edits.iter().enumerate() {
            self.execute(&format!(
                "UPDATE governance_budgets SET current_usage = current_usage + {number}.25"
            ))
            .await;
            let before = self.usage().await;
            change(&mut file, edit, number);
            self.apply(file.clone()).await;
            let after = self.usage().await;
            for (id, usage) in &after {
                if let Some(was) = before.get(id) {
                    assert!(usage >= was, "{id}: {was} -> {usage} by {edit:?}");
                }
            }
            // Nobody but the file has touched a budget, so the database has what it says, and for lists that it does not
            // have nothing is lost.
            let there: Vec<String> = self
                .budgets()
                .await
                .iter()
                .map(|row| row.split(' ').take(3).collect::<Vec<_>>().join(" "))
                .collect();
            for one in said(&file) {
                assert!(
                    there.contains(&one),
                    "{one} is not in {there:#?} after {edit:?}"
                );
            }
            let absent = matches!(edit, Edit::DropKey(_) | Edit::DropList(_));
            if absent {
                assert!(
                    before.keys().all(|id| after.contains_key(id)),
                    "{edit:?} deletes nothing"
                );
            }
        }
    }
}

/// The same edits every time.
fn files(seed: u8, number: usize) -> Vec<Vec<Edit>> {
    let mut runner = TestRunner::new_with_rng(
        Runs::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]),
    );
    (0..number)
        .map(|_| {
            proptest::collection::vec(edit(), 10)
                .new_tree(&mut runner)
                .unwrap()
                .current()
        })
        .collect()
}

#[rstest]
#[case(Backend::Sqlite, 8)]
#[case(Backend::Postgres, 3)]
#[tokio::test]
async fn no_edit_of_a_file_loses_usage(#[case] backend: Backend, #[case] number: usize) {
    for edits in files(11, number) {
        World::empty(backend).await.edited(&edits).await;
    }
}

#[rstest]
#[tokio::test]
async fn statements_do_not_grow_with_the_entries(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let mark = world.folder.path().join("count");
    let file = |keys: usize| {
        let keys: Vec<Value> = (0..keys)
            .map(|i| {
                json!({ "id": format!("vk-{i}"), "name": format!("key {i}"), "value": format!("sk-bf-{i}"),
                        "budgets": [{ "max_limit": 1, "reset_duration": "1d" }, { "max_limit": 2, "reset_duration": "1w" }, { "max_limit": 3, "reset_duration": "1M" }] })
            })
            .collect();
        json!({ "virtual_keys": keys })
    };
    let mut counted = Vec::new();
    // The first run makes Tollgate's own tables.
    for keys in [1, 20, 3000] {
        let path = world.file(&file(keys));
        tollgate()
            .on(&world.database.url)
            .with("TOLLGATE_FAULT", "count:0")
            .with("TOLLGATE_FAULT_MARK", &mark.display().to_string())
            .succeed(&["reconcile", "config", "--file", path.to_str().unwrap()]);
        counted.push(
            std::fs::read_to_string(&mark)
                .unwrap()
                .parse::<u32>()
                .unwrap(),
        );
    }
    assert_eq!(world.database.count("governance_budgets").await, 9000);
    assert_eq!(counted[1], counted[2], "{counted:?}");
    crate::say(&format!(
        "reconcile config, {}: {} statements",
        backend_name(backend),
        counted[2]
    ));
}

fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Sqlite => "SQLite",
        Backend::Postgres => "PostgreSQL",
    }
}
