//! Who decides what goes wrong and when: a timeline drawn from the seed before the first event, so
//! that what strikes does not depend on what it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::agents::Agent;
use crate::chance;
use crate::servers::{Api, Worker};
use crate::weather::Fault;
use crate::world::World;

/// Spells of bad weather in one simulation, at most.
const SPELLS_MAX: u64 = 9;
/// Blows (kills, power cuts, jumping clocks) in one simulation, at most.
const BLOWS_MAX: u64 = 7;
/// Operations of a disk within which an announced power cut comes.
const CUT_WITHIN: u64 = 60;
/// How far a wall clock jumps.
const JUMP_MS: i64 = 3_600_000;

/// Something that happens at a time.
#[derive(Clone, Copy, Debug)]
enum Event {
    Begins(Fault, u32),
    Ends(Fault),
    PowerCut { agent: u64, within: u64 },
    AgentKilled(u64),
    AgentRestarts(u64),
    ClockJumps(u64, i64),
    ApiKilled(u64),
    ApiStarts(u64),
    WorkerKilled(u64),
    WorkerStarts(u64),
    ConsumerKilled,
}

/// Everybody whom something may happen to.
pub struct Cast {
    pub world: Arc<World>,
    pub agents: Vec<Arc<Agent>>,
    pub apis: Arc<Vec<Api>>,
    pub workers: Vec<Worker>,
    pub consumer_kill: Arc<AtomicBool>,
}

/// The timeline of one simulation.
#[derive(Debug)]
pub struct Director {
    timeline: Vec<(Duration, Event)>,
}

impl Director {
    /// Draws what happens within `time`.
    #[must_use]
    pub fn draw(time: Duration) -> Self {
        let mut timeline = Vec::new();
        let within = u64::try_from(time.as_millis()).unwrap_or_default();
        for _ in 0..chance::below(SPELLS_MAX + 1) {
            let fault = pick(&Fault::ALL);
            let rate = pick(&[5, 30, 100]);
            let from = chance::ms(0, within);
            timeline.push((from, Event::Begins(fault, rate)));
            timeline.push((from + chance::ms(500, 25_000), Event::Ends(fault)));
        }
        for _ in 0..chance::below(BLOWS_MAX + 1) {
            let at = chance::ms(0, within);
            let back = at + chance::ms(200, 15_000);
            let whom = chance::below(2);
            match chance::below(8) {
                0 | 1 => {
                    let within = chance::below(CUT_WITHIN);
                    timeline.push((at, Event::PowerCut { agent: whom, within }));
                }
                2 => timeline.push((at, Event::AgentKilled(whom))),
                3 => timeline.push((at, Event::AgentRestarts(whom))),
                4 => {
                    let jump = if chance::percent(50) { JUMP_MS } else { -JUMP_MS };
                    timeline.push((at, Event::ClockJumps(whom, jump)));
                }
                5 => {
                    timeline.push((at, Event::ApiKilled(whom)));
                    timeline.push((back, Event::ApiStarts(whom)));
                }
                6 => {
                    timeline.push((at, Event::WorkerKilled(whom)));
                    timeline.push((back, Event::WorkerStarts(whom)));
                }
                _ => timeline.push((at, Event::ConsumerKilled)),
            }
        }
        timeline.sort_by_key(|(at, _)| *at);
        Self { timeline }
    }

    /// Lets it happen, and mends everything at the end of `time`.
    pub async fn direct(self, cast: &Cast, time: Duration) {
        let began = Instant::now();
        for (at, event) in self.timeline.into_iter().filter(|(at, _)| *at < time) {
            tokio::time::sleep_until(began + at).await;
            crate::note!(cast.world.history, "{event:?}");
            cast.suffer(event);
        }
        tokio::time::sleep_until(began + time).await;
        crate::note!(cast.world.history, "everything is mended");
        cast.world.weather.clear();
        for number in 0..2 {
            cast.suffer(Event::ApiStarts(number));
            cast.suffer(Event::WorkerStarts(number));
        }
    }
}

fn pick<T: Copy>(from: &[T]) -> T {
    let number = usize::try_from(chance::below(from.len() as u64)).unwrap_or_default();
    *from.get(number).expect("a list of faults is never empty")
}

impl Cast {
    fn suffer(&self, event: Event) {
        let place = |number: u64| usize::try_from(number).unwrap_or_default();
        let agent = |number: u64| self.agents.get(place(number) % self.agents.len());
        let worker = |number: u64| self.workers.get(place(number) % self.workers.len());
        match event {
            Event::Begins(fault, rate) => self.world.weather.set(fault, rate),
            Event::Ends(fault) => self.world.weather.set(fault, 0),
            Event::PowerCut { agent: number, within } => {
                agent(number).into_iter().for_each(|agent| agent.machine.cut_power_after(within));
            }
            Event::AgentKilled(number) => {
                agent(number).into_iter().for_each(|agent| agent.machine.kill());
            }
            Event::AgentRestarts(number) => agent(number)
                .into_iter()
                .for_each(|agent| agent.restart.store(true, Ordering::Relaxed)),
            Event::ClockJumps(number, by_ms) => agent(number).into_iter().for_each(|agent| {
                agent.clock_off_ms.fetch_add(by_ms, Ordering::Relaxed);
            }),
            Event::ApiKilled(number) => {
                self.apis.get(place(number)).into_iter().for_each(Api::kill);
            }
            Event::ApiStarts(number) => {
                self.apis.get(place(number)).into_iter().for_each(Api::start);
            }
            Event::WorkerKilled(number) => worker(number).into_iter().for_each(Worker::kill),
            Event::WorkerStarts(number) => worker(number).into_iter().for_each(Worker::start),
            Event::ConsumerKilled => self.consumer_kill.store(true, Ordering::Relaxed),
        }
    }
}
