//! What a saved plan would do, from `show -json` and never from words. That JSON holds sensitive values in plain text: it is read
//! as a stream in which everything is passed over but the actions, and nothing of it is logged or kept.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// How many resources a plan touches, as the program itself counts: a replaced one is both added and destroyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Counts {
    pub(crate) add: u64,
    pub(crate) change: u64,
    pub(crate) destroy: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) import: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) forget: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is known of a plan. It goes with the plan to the attempt that applies it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Planned {
    /// None when the plan could not be counted.
    pub(crate) counts: Option<Counts>,
    /// Whether outputs change.
    pub(crate) changes_outputs: bool,
    /// Whether a variable is not kept in the plan (an ephemeral one), so that applying needs the variables again.
    pub(crate) needs_variables: bool,
}

impl Planned {
    /// One line for people, before.
    pub(crate) fn to_do(self) -> String {
        self.words(["to import", "to add", "to change", "to destroy", "to forget"], "changes are planned")
    }

    /// One line for people, after.
    pub(crate) fn done(self) -> String {
        self.words(["imported", "added", "changed", "destroyed", "forgotten"], "applied")
    }

    fn words(self, [imported, added, changed, destroyed, forgotten]: [&str; 5], uncounted: &str) -> String {
        let Some(Counts { add, change, destroy, import, forget }) = self.counts else { return uncounted.to_owned() };
        let mut words = vec![format!("{add} {added}"), format!("{change} {changed}"), format!("{destroy} {destroyed}")];
        if import > 0 {
            words.insert(0, format!("{import} {imported}"));
        }
        if forget > 0 {
            words.push(format!("{forget} {forgotten}"));
        }
        let only_outputs = self.changes_outputs && self.counts == Some(Counts::default());
        words.join(", ") + if only_outputs { " (only outputs change)" } else { "" }
    }
}

/// `show -json` of a plan, as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Shown {
    resource_changes: Vec<ResourceChange>,
    output_changes: BTreeMap<String, OutputChange>,
    variables: BTreeMap<String, IgnoredAny>,
    configuration: Configuration,
}

#[derive(Debug, Deserialize)]
struct ResourceChange {
    change: Change,
}

#[derive(Debug, Deserialize)]
struct Change {
    actions: BTreeSet<Action>,
    importing: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct OutputChange {
    actions: BTreeSet<Action>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Configuration {
    root_module: RootModule,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RootModule {
    variables: BTreeMap<String, IgnoredAny>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    NoOp,
    Create,
    Read,
    Update,
    Delete,
    Forget,
    #[serde(other)]
    Other,
}

impl From<&Shown> for Planned {
    fn from(shown: &Shown) -> Self {
        let Shown { resource_changes, output_changes, variables, configuration } = shown;
        let mut counts = Counts::default();
        for ResourceChange { change: Change { actions, importing } } in resource_changes {
            counts.import += u64::from(importing.is_some());
            for action in actions {
                match action {
                    Action::Create => counts.add += 1,
                    Action::Update => counts.change += 1,
                    Action::Delete => counts.destroy += 1,
                    Action::Forget => counts.forget += 1,
                    Action::NoOp | Action::Read | Action::Other => {}
                }
            }
        }
        Self {
            counts: Some(counts),
            changes_outputs: output_changes
                .values()
                .any(|OutputChange { actions }| actions.iter().any(|action| *action != Action::NoOp)),
            // A plan keeps every variable of the root module but the ephemeral ones.
            needs_variables: configuration.root_module.variables.keys().any(|name| !variables.contains_key(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn planned(shown: Value) -> Planned {
        Planned::from(&serde_json::from_value::<Shown>(shown).expect("it is a plan"))
    }

    fn changes(actions: &[&[&str]]) -> Value {
        let changes: Vec<Value> = actions.iter().map(|actions| json!({ "change": { "actions": actions } })).collect();
        json!({ "resource_changes": changes })
    }

    #[test]
    fn a_replaced_resource_is_added_and_destroyed() {
        let planned = planned(changes(&[
            &["create"],
            &["create", "delete"],
            &["delete", "create"],
            &["update"],
            &["no-op"],
            &["read"],
            &["one of tomorrow"],
        ]));
        assert_eq!(planned.to_do(), "3 to add, 1 to change, 2 to destroy");
        assert_eq!(planned.done(), "3 added, 1 changed, 2 destroyed");
    }

    #[test]
    fn what_is_rare_is_said_only_when_it_is_there() {
        let rare = json!({ "resource_changes": [
            { "change": { "actions": ["no-op"], "importing": { "id": "i-1" } } },
            { "change": { "actions": ["forget"] } },
        ]});
        assert_eq!(planned(rare).to_do(), "1 to import, 0 to add, 0 to change, 0 to destroy, 1 to forget");
        let outputs = json!({ "output_changes": { "ip": { "actions": ["update"] }, "id": { "actions": ["no-op"] } } });
        assert_eq!(planned(outputs).to_do(), "0 to add, 0 to change, 0 to destroy (only outputs change)");
        assert_eq!(Planned::default().to_do(), "changes are planned");
        assert_eq!(Planned::default().done(), "applied");
    }

    #[test]
    fn a_variable_that_the_plan_does_not_keep_is_needed_again() {
        let shown = |kept: Value| {
            planned(json!({
                "variables": kept,
                "configuration": { "root_module": { "variables": { "region": {}, "token": {} } } }
            }))
        };
        assert!(shown(json!({ "region": { "value": "x" } })).needs_variables);
        assert!(!shown(json!({ "region": { "value": "x" }, "token": { "value": null } })).needs_variables);
    }
}
