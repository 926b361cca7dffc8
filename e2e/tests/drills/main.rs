//! Every fault of the list in docs/reliability.md on real servers: `cargo xtask drill`.
//!
//! A file is named after its fault's number and what breaks, a test after the promise it holds
//! the system to. Every drill ends with the comparison of L1–L4 and L8; what holds besides is
//! asserted in the drill. One stack at a time: `--test-threads=1`.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a drill that can't go on fails")]

mod crash_points;
mod crash_points_strace;
mod f01_broker_killed;
mod f02_too_few_in_sync;
mod f04_away_longer_than_message_timeout;
mod f05_api_killed_at_each_call;
mod f06_answer_swallowed;
mod f07_agent_killed_at_each_call;
mod f08_disk_full_or_failing;
mod f09_spool_damaged;
mod f10_s3_in_trouble;
mod f11_sent_both_ways;
mod f12_rebalance_storm;
mod f14_mysqld_frozen;
mod f16_failover;
mod f17_mysql_errors;
mod f18_wrong_clocks;
mod f19_poison;
mod f20_one_over_each_limit;
mod f21_fleet_returns;
mod f22_redis;
mod f23_cuts;
mod f24_restarts;
mod f25_long_select;
mod f26_clones;
mod f27_collector;
mod f27_foreign_senders;
mod f27_libraries;
mod f27_telegraf;
mod f28_acks_slower_than_the_deadline;
mod f29_lost_log;
mod f31_late_data;
mod f32_random_mix;
mod f33_load_balancers;
mod f34_renewals;
mod f35_moved;
mod foreign;
mod hostile;
mod hostile_connections;
mod hostile_crowd;
mod hostile_foreign;
mod hostile_load;
mod hostile_objects;
mod hostile_shares;
mod hostile_target;
mod hostile_way;
mod hostile_wire;
mod openapi;
mod sending;
mod storing;
