//! The operators' side of Spillway: one command line and one small web page.
//!
//! It holds no data of its own but a journal of what it changed. Modules stand in the order an
//! invocation takes: what is asked, what is known, the outside, the commands, the answer.

pub mod cli;
pub mod settings;
pub mod app;
pub mod desk;

pub mod consent;
pub mod journal;

pub mod reach;

pub mod commands;
pub mod status;

pub mod answer;
pub mod failure;
