//! The configuration from outside: sample trees in `testdata/config`, the settings, and answers to surveys.

mod answers;
mod catalog;
mod objects;
mod plugins;
mod reference;
mod samples;
mod settings;
