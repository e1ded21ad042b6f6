//! How a run ends: the network heals, everything settles, the invariants are checked; then everybody leaves, and
//! nothing may be left.

use std::collections::{HashMap, HashSet};

use ferromq::{
    broker::{DropReason, EndReason, Stats},
    codec::{QoS, topic},
};

use crate::{
    ledger::{Claims, inner},
    plan::{Plan, Profile},
    world::World,
};

/// What happened in a run that an invariant is about.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Harvest {
    pub(crate) promised: usize,
    pub(crate) repeated: usize,
    pub(crate) exactly_once: usize,
    pub(crate) shared: usize,
    pub(crate) retained: usize,
    pub(crate) wills: usize,
    pub(crate) takeovers: usize,
    pub(crate) expired: usize,
}

/// One run from a seed. `Err` says which invariant broke.
pub(crate) fn run(world: &mut World, profile: Profile) -> Result<(), String> {
    let steps_done = |world: &World| world.actors.iter().all(|actor| actor.habits.is_watcher || actor.steps == 0);
    world.run(600, steps_done)?;
    world.calm_down()?;
    world.check(profile)?;
    if world.plan.shuts_down {
        world.shut_down()?;
        return world.check_shut_down(profile);
    }
    world.leave()?;
    world.check_empty()
}

impl World {
    /// No more faults, no more ideas: every client comes back, and everything on its way arrives.
    fn calm_down(&mut self) -> Result<(), String> {
        self.note(|_| "calm".into());
        self.is_calm = true;
        for client in 0..self.actors.len() {
            self.reconnect(client)?;
        }
        if !self.run(900, Self::is_settled)? {
            return Err(format!("nothing settles: {}", self.unsettled()));
        }
        // Delayed wills come out, sessions of nobody expire; after that it must be as settled as before.
        self.run(60, |_| false)?;
        if !self.run(100, Self::is_settled)? {
            return Err(format!("nothing settles again: {}", self.unsettled()));
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.actors.iter().all(|actor| {
            actor.session.is_online() && actor.session.unfinished() == 0 && actor.session.unanswered() == 0
        }) && self.shards.iter().all(ferromq::broker::Shard::is_settled)
            && self.is_quiet()
    }

    fn unsettled(&self) -> String {
        let clients: Vec<String> = self
            .actors
            .iter()
            .enumerate()
            .filter(|(_, actor)| {
                !actor.session.is_online() || actor.session.unfinished() + actor.session.unanswered() > 0
            })
            .map(|(client, actor)| {
                let session = &actor.session;
                format!(
                    "client {client}: online {}, unfinished {}, unanswered {}",
                    session.is_online(),
                    session.unfinished(),
                    session.unanswered()
                )
            })
            .collect();
        let sessions = self.shards.iter().flat_map(ferromq::broker::Shard::clients);
        let busy: Vec<_> = sessions.filter(|session| session.queued + session.inflight > 0).collect();
        let settled: Vec<bool> = self.shards.iter().map(ferromq::broker::Shard::is_settled).collect();
        format!("{clients:?}, shards settled {settled:?}, sessions {busy:?}, {:?}", self.stats())
    }

    /// What the invariants had to bite on in a run.
    pub(crate) fn harvest(&self) -> Harvest {
        let promised = self.actors.iter().enumerate().map(|(client, actor)| {
            let packet_bytes_max = actor.habits.packet_bytes_max;
            self.ledger.promises(&Claims { client, subscriptions: &actor.subscriptions, packet_bytes_max })
        });
        let received = || self.ledger.received.iter().flatten();
        let of_groups = received().filter(|got| self.ledger.published[got.number].topic.starts_with("s/"));
        Harvest {
            promised: promised.sum(),
            repeated: received().filter(|got| got.dup).count(),
            exactly_once: received().filter(|got| got.qos == QoS::ExactlyOnce).count(),
            shared: of_groups.count(),
            retained: received().filter(|got| got.retain).count(),
            wills: self.ledger.wills.values().map(|will| will.seen as usize).sum(),
            takeovers: self.stats().ended[EndReason::SessionTakenOver as usize] as usize,
            expired: self.stats().sessions_expired as usize,
        }
    }

    fn check(&self, profile: Profile) -> Result<(), String> {
        let stats = self.stats();
        self.check_losses(profile, &stats)?;
        for (client, actor) in self.actors.iter().enumerate() {
            let shares: Vec<String> = if actor.habits.shares { Plan::shares() } else { Vec::new() };
            self.ledger.check_repetitions(client, &shares)?;
            self.ledger.check_order(client, &shares, profile == Profile::Lossy)?;
        }
        self.check_shared_repetitions()?;
        self.check_subscriptions()?;
        if profile != Profile::Lossy {
            self.ledger.check_wills()?;
            self.check_retained()?;
        }
        let open = self.by_conn.len() as u64;
        let ended: u64 = stats.ended.iter().sum();
        if stats.connections_opened != ended + open {
            let opened = stats.connections_opened;
            return Err(format!("{opened} connections were opened, {ended} ended with a reason, {open} are open"));
        }
        if stats.messages_inflight + stats.messages_queued > 0 {
            return Err(format!("settled, and yet something is in flight or queued: {stats:?}"));
        }
        Ok(())
    }

    /// What was acknowledged to its publisher has arrived, or its loss was counted.
    fn check_losses(&self, profile: Profile, stats: &Stats) -> Result<(), String> {
        let mut missing = Vec::new();
        for (client, actor) in self.actors.iter().enumerate() {
            let claims =
                Claims { client, subscriptions: &actor.subscriptions, packet_bytes_max: actor.habits.packet_bytes_max };
            missing.extend(self.ledger.missing(&claims).into_iter().map(|number| (format!("client {client}"), number)));
        }
        missing.extend(self.missing_in_groups());
        let full = stats.dropped(DropReason::QueueFull) + stats.dropped(DropReason::QueueFullOldest);
        if profile == Profile::Lossy {
            if missing.len() as u64 > full {
                return Err(format!("{} messages are lost, {full} drops were counted: {missing:?}", missing.len()));
            }
            return Ok(());
        }
        if full > 0 || stats.dropped(DropReason::ShardGone) > 0 {
            return Err(format!("drops without a reason to drop: {:?}", stats.dropped));
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("acknowledged messages are lost: {missing:?}")) }
    }

    /// QoS 1 messages that no member of a group has got, although one was there all the time.
    fn missing_in_groups(&self) -> Vec<(String, usize)> {
        let mut missing = Vec::new();
        for filter in Plan::shares() {
            let members: Vec<usize> =
                (0..self.actors.len()).filter(|client| self.actors[*client].habits.shares).collect();
            let got: HashSet<usize> =
                members.iter().flat_map(|client| self.ledger.received[*client].iter()).map(|got| got.number).collect();
            let since: Option<u64> = members
                .iter()
                .filter_map(|client| self.actors[*client].subscriptions.get(&filter))
                .filter_map(|held| held.since)
                .min();
            let fits = members.iter().map(|client| self.actors[*client].habits.packet_bytes_max).min().unwrap_or(0);
            for (number, message) in self.ledger.published.iter().enumerate() {
                let promised = message.acked
                    && !message.expires
                    && message.qos == QoS::AtLeastOnce
                    && since.is_some_and(|since| since <= message.at)
                    && message.payload_bytes + 80 <= fits as usize
                    && topic::matches(inner(&filter), &message.topic);
                if promised && !got.contains(&number) {
                    missing.push((filter.clone(), number));
                }
            }
        }
        missing
    }

    /// A QoS 2 message goes to one member of each group, and to that one once.
    fn check_shared_repetitions(&self) -> Result<(), String> {
        let mut counts: HashMap<usize, usize> = HashMap::new();
        for (client, _) in self.actors.iter().enumerate().filter(|(_, actor)| actor.habits.shares) {
            for got in self.ledger.received[client].iter().filter(|got| got.qos == QoS::ExactlyOnce && !got.retain) {
                if self.ledger.published[got.number].topic.starts_with("s/") {
                    *counts.entry(got.number).or_default() += 1;
                }
            }
        }
        for (number, count) in counts {
            let wanted = &self.ledger.published[number].topic;
            let groups = Plan::shares().iter().filter(|filter| topic::matches(inner(filter), wanted)).count();
            if count > groups {
                return Err(format!("{groups} groups got QoS 2 message {number} {count} times"));
            }
        }
        Ok(())
    }

    /// The server holds what its clients believe to have subscribed to, whatever was lost on the way.
    fn check_subscriptions(&self) -> Result<(), String> {
        let held: HashMap<String, usize> = self
            .shards
            .iter()
            .flat_map(ferromq::broker::Shard::clients)
            .map(|info| (info.client_id.as_str().to_owned(), info.subscriptions))
            .collect();
        for (client, actor) in self.actors.iter().enumerate() {
            let believed = actor.session.subscriptions().count();
            let held = held.get(actor.session.client_id().as_str()).copied().unwrap_or(0);
            if held < believed {
                return Err(format!("client {client} believes in {believed} subscriptions, the server has {held}"));
            }
        }
        Ok(())
    }

    fn check_retained(&self) -> Result<(), String> {
        for client in 0..self.actors.len() {
            let wanted = format!("r/{client}");
            let held = self.shared.retained(&wanted, 10);
            let number = held.first().map(|message| {
                let payload = String::from_utf8_lossy(message.payload()).into_owned();
                payload.split(':').next().and_then(|number| number.parse::<usize>().ok()).unwrap_or(usize::MAX)
            });
            let possible = self.ledger.retained(&wanted);
            if held.len() > 1 || !possible.contains(&number) {
                return Err(format!("{wanted} retains {number:?}, which should be one of {possible:?}"));
            }
        }
        Ok(())
    }

    /// Every client leaves, and leaves no session behind.
    fn leave(&mut self) -> Result<(), String> {
        self.note(|_| "everybody leaves".into());
        for client in 0..self.actors.len() {
            if !self.actors[client].habits.version.is_v5() {
                // Before MQTT 5 only a clean session ends with its connection.
                self.forget(client, true);
            }
        }
        if !self.run(100, Self::is_settled)? {
            return Err(format!("nothing settles before the end: {}", self.unsettled()));
        }
        self.is_over = true;
        for client in 0..self.actors.len() {
            let habits = &self.actors[client].habits;
            let expiry = (habits.version.is_v5() && habits.is_persistent).then_some(0);
            self.say_goodbye(client, expiry);
            self.serve(client)?;
        }
        self.run(10, |_| false)?;
        Ok(())
    }

    /// The broker shuts down in its two steps, while clients are connected and some have just published.
    fn shut_down(&mut self) -> Result<(), String> {
        self.note(|_| "the broker shuts down".into());
        self.is_over = true;
        for client in 0..self.actors.len() {
            if let Some(qos) = self.actors[client].habits.publishes {
                self.publish(client, qos);
                self.serve(client)?;
            }
        }
        self.run(self.rng.clone().between(0, 1), |_| false)?;
        for shard in 0..self.shards.len() {
            let now = self.now();
            self.shards[shard].prepare_shutdown(now);
            self.wake(shard);
        }
        // As the shell does: the second step follows when the envelopes of the first have been taken.
        self.run(10, Self::is_quiet)?;
        for shard in 0..self.shards.len() {
            let now = self.now();
            self.shards[shard].shutdown(now);
            self.wake(shard);
        }
        self.run(10, |_| false)?;
        Ok(())
    }

    /// Nobody is left connected, everybody was told, and the prompt wills came before that.
    fn check_shut_down(&self, profile: Profile) -> Result<(), String> {
        let stats = self.stats();
        let connected = [stats.clients_connected, self.shared.connected() as u64, self.by_conn.len() as u64];
        if connected != [0; 3] {
            return Err(format!("the broker has shut down, and yet somebody is connected: {connected:?}"));
        }
        if let Some(client) = self.actors.iter().position(|actor| actor.session.is_online()) {
            return Err(format!("client {client} was not told that the broker has shut down"));
        }
        let ended: u64 = stats.ended.iter().sum();
        if stats.connections_opened != ended {
            return Err(format!("{} connections were opened, {ended} ended", stats.connections_opened));
        }
        if profile == Profile::Lossy { Ok(()) } else { self.ledger.check_wills() }
    }

    fn check_empty(&self) -> Result<(), String> {
        let stats = self.stats();
        let held = [
            stats.clients_connected,
            stats.clients_disconnected,
            stats.subscriptions,
            stats.shared_subscriptions,
            stats.messages_queued,
            stats.messages_inflight,
            stats.bytes_held,
            self.shared.connected() as u64,
            self.shared.filters() as u64,
            self.by_conn.len() as u64,
        ];
        if held.iter().any(|count| *count > 0) {
            return Err(format!("all have left, and yet something is held: {held:?}"));
        }
        let clients: Vec<_> = self.shards.iter().flat_map(ferromq::broker::Shard::clients).collect();
        if !clients.is_empty() {
            return Err(format!("all have left, and yet there are sessions: {clients:?}"));
        }
        let ended: u64 = stats.ended.iter().sum();
        if stats.connections_opened != ended {
            return Err(format!("{} connections were opened, {ended} ended", stats.connections_opened));
        }
        Ok(())
    }
}

impl Plan {
    /// The shared filters that clients may hold.
    fn shares() -> Vec<String> {
        let mut shares: Vec<String> = crate::plan::SHARER_FILTERS.iter().map(ToString::to_string).collect();
        shares.retain(|filter| filter.starts_with("$share/"));
        shares.sort();
        shares.dedup();
        shares
    }
}
