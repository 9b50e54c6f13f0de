//! Runs seeds of the simulator until one breaks a rule.
#![allow(clippy::print_stdout)] // It is a command.

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use skep_tests::sim::{self, Mutation, Options, Summary};

/// Simulates whole clusters: `--seeds` runs, each of which follows from its seed alone.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Plant a fault: skip-sync, acknowledge-early, reuse-version, drop-change, vote-twice, stale-read or
    /// keep-dropped.
    #[arg(long)]
    mutation: Option<Mutation>,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// Go on after a failure, and count.
    #[arg(long)]
    keep_going: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options {
        mutation: args.mutation,
        trace: args.trace,
    };
    // A panic is reported like any other finding.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let mut total = Summary::default();
    let mut failures = Vec::new();
    let mut done = 0;
    for seed in args.from..args.from.saturating_add(args.seeds) {
        done += 1;
        match sim::run(seed, options) {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                if !args.json {
                    println!("{failure}\n");
                }
                failures.push(failure);
                if !args.keep_going {
                    break;
                }
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        let failures: Vec<_> = failures
            .iter()
            .map(|failure| {
                serde_json::json!({
                    "seed": failure.seed, "step": failure.step,
                    "rule": failure.rule, "details": failure.details,
                })
            })
            .collect();
        let result = serde_json::json!({
            "from": args.from, "seeds": done, "seconds": seconds,
            "virtual_seconds": total.virtual_ms / 1000, "events": total.steps,
            "entries": total.entries, "acknowledged": total.acknowledged,
            "refused": total.refused, "unknown": total.unknown, "reads": total.reads,
            "starts": total.starts, "leaders": total.leaders, "snapshots": total.snapshots,
            "lagged": total.lagged, "keys": total.keys, "stops": total.stops, "gave_way": total.gave_way, "failures": failures,
        });
        println!("{result}");
    } else {
        println!(
            "{done} seeds in {seconds:.1} s, {} of them failed: {total}",
            failures.len()
        );
    }
    match failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
