//! Random histories against a model: whatever fails and whenever the power goes, a batch that
//! the spool called durable is there, or was ended by its taker, or is named in the books.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use proptest::prelude::*;
use spillway_proto::kafka_record::Lane;
use spillway_proto::object_key::ObjectKey;

use super::disk_fake::Op;
use super::store_tests::{Bench, EPOCH, limits, seq_of};
use super::take::Ending;

#[derive(Clone, Debug)]
pub enum Action {
    Append {
        bytes: usize,
    },
    /// Take some and end each: 0 gone, 1 returned, 2 parked.
    Deliver {
        live: bool,
        batches: usize,
        ending: u8,
    },
    Pass {
        ms: i64,
    },
    Fail {
        op: usize,
        calls: u64,
        for_ever: bool,
    },
    Heal,
    Crash {
        seed: u64,
    },
    /// `kill -9`: the page cache survives.
    Kill,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (10_usize..30_000).prop_map(|bytes| Action::Append { bytes }),
        4 => (any::<bool>(), 1_usize..6, 0_u8..3)
            .prop_map(|(live, batches, ending)| Action::Deliver { live, batches, ending }),
        3 => (1_i64..40_000).prop_map(|ms| Action::Pass { ms }),
        2 => (0..Op::ALL.len(), 0_u64..5, any::<bool>())
            .prop_map(|(op, calls, for_ever)| Action::Fail { op, calls, for_ever }),
        2 => Just(Action::Heal),
        1 => any::<u64>().prop_map(|seed| Action::Crash { seed }),
        1 => Just(Action::Kill),
    ]
}

/// What must be where, held against what is.
pub struct Model {
    pub bench: Bench,
    next_seq: u64,
    /// Called durable, and nobody has ended them.
    durable: BTreeSet<u64>,
    /// Called volatile: a crash may take them.
    volatile: BTreeSet<u64>,
    /// In the books of earlier lives.
    named: BTreeSet<u64>,
    ever: BTreeSet<u64>,
}

impl Model {
    pub fn new() -> Self {
        Self {
            bench: Bench::new(),
            next_seq: 1,
            durable: BTreeSet::new(),
            volatile: BTreeSet::new(),
            named: BTreeSet::new(),
            ever: BTreeSet::new(),
        }
    }

    pub fn act(&mut self, action: &Action) {
        match *action {
            Action::Append { bytes } => self.append(bytes),
            Action::Deliver { live, batches, ending } => self.deliver(live, batches, ending),
            Action::Pass { ms } => {
                let log = Arc::clone(&self.bench.log);
                self.bench.store.tick(self.bench.store.now_ms + ms, Some(&log));
            }
            Action::Fail { op, calls, for_ever } => match for_ever {
                true => self.bench.disk.fail_for_ever(Op::ALL[op], ErrorKind::Other),
                false => self.bench.disk.fail_once(Op::ALL[op], calls, ErrorKind::StorageFull),
            },
            Action::Heal => self.bench.disk.heal(),
            Action::Crash { seed } => {
                self.bench.disk.crash(seed);
                self.reopen();
            }
            Action::Kill => {
                self.bench.disk.heal();
                self.reopen();
            }
        }
        let (bytes, bytes_max) = (self.bench.disk.bytes(), limits().budget.bytes_max);
        assert!(bytes <= bytes_max, "{bytes} bytes are more than the spool may take");
    }

    fn append(&mut self, bytes: usize) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.ever.insert(seq);
        match self.bench.append(seq, bytes) {
            Ok(stored) if stored.volatile => self.volatile.insert(seq),
            Ok(_) => self.durable.insert(seq),
            Err(refused) => {
                assert_eq!(seq_of(&refused.record.id), seq);
                self.named.insert(seq)
            }
        };
    }

    fn deliver(&mut self, live: bool, batches: usize, ending: u8) {
        let lane = if live { Lane::Live } else { Lane::Backlog };
        let taken = self.bench.take(lane, batches);
        let serials: Vec<_> = taken.iter().map(|batch| batch.serial).collect();
        let key = ObjectKey::from_random(1);
        let log = Arc::clone(&self.bench.log);
        let gone = match ending {
            0 => true,
            1 => false,
            _ => self.bench.store.note_parked(&key, &serials, &log).is_ok(),
        };
        // S3 has it all the same: whether the spool still does is no matter of loss.
        let note_failed = ending == 2 && !gone;
        for batch in taken {
            let seq = seq_of(&batch.id);
            let ending = if gone { Ending::Gone } else { Ending::Returned { after_ms: 0 } };
            self.bench.store.settle(batch.serial, ending);
            if gone || note_failed {
                self.durable.remove(&seq);
                self.volatile.remove(&seq);
            }
        }
    }

    fn reopen(&mut self) {
        self.named.extend(self.bench.books.seqs());
        let before = self.bench.disk.is_struck();
        let opened = self.bench.try_reopened();
        let struck = self.bench.disk.is_struck() != before;
        self.bench = opened.unwrap_or_else(|| {
            let disk = &self.bench.disk;
            if disk.is_dark() {
                disk.crash(self.next_seq);
            }
            disk.spare();
            self.bench.reopened()
        });
        self.named.extend(self.bench.found.damaged.iter().map(|lost| lost.first_seq));
        self.volatile.clear();
        // A segment that could not be read stays, unseen until the next start.
        if !struck {
            self.check();
        }
    }

    pub fn check(&mut self) {
        self.bench.store.now_ms += 10_000;
        self.bench.disk.look(true);
        let waiting: BTreeSet<_> = self.bench.waiting().into_iter().collect();
        self.bench.disk.look(false);
        let named: BTreeSet<_> =
            self.named.iter().copied().chain(self.bench.books.seqs()).collect();
        for seq in self.durable.iter().chain(&self.volatile) {
            assert!(waiting.contains(seq) || named.contains(seq), "{seq} is lost in silence");
        }
        assert!(waiting.is_subset(&self.ever), "what was never stored came back");
        if let Some(last) = self.bench.found.batches.checked_sub(1).and(waiting.last()) {
            let highest = self.bench.found.highest_seq.get(&EPOCH).copied().unwrap_or_default();
            assert!(highest.max(self.next_seq - 1) >= *last);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_in_silence(
        actions in proptest::collection::vec(action(), 1..80),
        seed in any::<u64>(),
    ) {
        let mut model = Model::new();
        for action in &actions {
            model.act(action);
        }
        model.bench.disk.heal();
        model.check();
        model.act(&Action::Crash { seed });
    }
}
