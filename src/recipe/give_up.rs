//! Jobs that are given up before their tries are used up.
//!
//! The rules are part of the recipe, written down before the run (`aurelia odds` measures them on an earlier one). Odds that
//! a process learns while it runs were rejected: what a job asks next would then depend on other jobs and on their order,
//! and a replay of its journal could end elsewhere.

use serde::{Deserialize, Serialize};

use super::Recipe;

/// Gives a job up that has this number of tries behind it and no score that is high enough to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiveUp {
    /// After this many tries, 1..=100.
    pub after_try: u32,
    /// Where the best score so far is below this one, 2..=10.
    pub below_score: u8,
}

impl Recipe {
    /// The rule by which a job is given up that has so many tries behind it, none of them accepted, and this best score.
    pub fn gives_up(&self, tries: u32, best: Option<u8>) -> Option<GiveUp> {
        let applies = |rule: &&GiveUp| tries >= rule.after_try && best.is_none_or(|best| best < rule.below_score);
        self.give_up.iter().find(applies).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::RecipeFile;

    #[test]
    fn a_job_is_given_up_by_the_first_rule_that_its_tries_and_best_score_meet() {
        let rule = |after_try, below_score| GiveUp { after_try, below_score };
        let builtin = RecipeFile::builtin().unwrap().resolve(|_| true);
        assert_eq!(builtin.gives_up(4, Some(1)), None, "off by default");
        let recipe = Recipe { give_up: vec![rule(2, 3), rule(4, 5)], ..builtin };
        for (tries, best, given_up) in [
            (1, 1, None),
            (2, 2, Some(rule(2, 3))),
            (2, 3, None),
            (3, 2, Some(rule(2, 3))),
            (3, 4, None),
            (4, 4, Some(rule(4, 5))),
            (4, 5, None),
        ] {
            assert_eq!(recipe.gives_up(tries, Some(best)), given_up, "{best} after {tries}");
        }
    }
}
