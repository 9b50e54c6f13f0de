//! `fuzz [--seconds N] [--seed N] [TARGET…]`: tries each target for N seconds (default 5). A failing
//! input is printed and written to `fuzz-<target>.bin`; `fuzz --input FILE TARGET` tries it again.
//! `fuzz --corpus DIR [TARGET…]` writes the valid inputs to `DIR/<target>/`, for other fuzzers.

#![allow(clippy::print_stdout, reason = "a tool for people")]

use std::{error::Error, fs, path::PathBuf, time::Duration};

use skep_fuzz::{TARGETS, Target, fuzz, target};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut seconds, mut seed, mut input, mut corpus) = (5, 1, None, None);
    let mut targets: Vec<Target> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--seconds" => seconds = value()?.parse()?,
            "--seed" => seed = value()?.parse()?,
            "--input" => input = Some(fs::read(value()?)?),
            "--corpus" => corpus = Some(PathBuf::from(value()?)),
            name => {
                let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
                let found = target(name);
                targets.push(found.ok_or(format!("{name} is none of {}", names.join(", ")))?);
            }
        }
    }
    if targets.is_empty() {
        targets = TARGETS.to_vec();
    }
    if let Some(input) = input {
        targets.iter().for_each(|target| (target.run)(&input));
        return Ok(());
    }
    if let Some(corpus) = corpus {
        for target in targets {
            let dir = corpus.join(target.name);
            fs::create_dir_all(&dir)?;
            for (number, seed) in (target.seeds)().iter().enumerate() {
                fs::write(dir.join(format!("seed-{number}")), seed)?;
            }
        }
        return Ok(());
    }
    let mut failed = false;
    for target in targets {
        let name = target.name;
        match fuzz(target, seed, u64::MAX, Duration::from_secs(seconds)) {
            Ok(tried) => println!("{name:>18}: {tried} inputs"),
            Err(crash) => {
                let file = format!("fuzz-{name}.bin");
                println!("{name:>18}: PANIC after {} inputs: {file}", crash.after);
                fs::write(file, crash.input)?;
                failed = true;
            }
        }
    }
    match failed {
        true => Err("a target has panicked".into()),
        false => Ok(()),
    }
}
