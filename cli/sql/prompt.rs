//! The prompt of `minerva sql`: reads statements and commands from a terminal, one after the other, until the user leaves.
//!
//! In: what is typed. Out: results on standard output or in a file, everything else on standard error. The connection is made beside the prompt, so
//! that the first line is there at once; whether it failed is said with the first statement. Deliberately absent: SQL beyond where a statement ends.

mod command;
mod complete;
mod highlight;
mod history;
mod link;
mod names;
mod pager;
mod progress;
mod words;

use std::{
    env,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use tokio::signal::unix::{SignalKind, signal};

use self::{command::Command, history::History, link::Link, names::Names, pager::Screen, progress::Progress};
use super::{
    Results, SqlArgs,
    interrupt::{Interrupt, Interrupts},
    run_statement, say_time,
    split::{Statement, is_finished, split},
};
use crate::{
    failure::Failure,
    line::{Completion, Editor, Entered, Helper, Style, size},
    output::Format,
};

const PROMPT: &str = "minerva> ";
const CONTINUATION: &str = "      -> ";

/// Runs the prompt until the user leaves.
pub(super) async fn run(args: &SqlArgs) -> Result<(), Failure> {
    let history = History::of_user();
    let mut editor = Editor::open(history.read()).map_err(|error| {
        Failure::Failed(format!(
            "the terminal cannot be opened: {error}; give statements with -e SQL or -f FILE"
        ))
    })?;
    say(&format!(
        "minerva {}; `help` lists the commands, Ctrl-D leaves",
        env!("CARGO_PKG_VERSION")
    ));
    leave_when_told(editor.restorer());
    let names = Names::new(args.catalog.as_deref(), args.schema.as_deref());
    let mut prompt = Prompt {
        link: Link::begin(args.clone(), names.clone()),
        interrupts: Interrupts::listen(),
        format: args.output_format,
        timing: true,
        output: None,
        last: None,
    };
    loop {
        let sql = Sql {
            names: names.clone(),
            is_coloured: is_coloured(),
        };
        let reading = move || {
            let entered = editor.read(PROMPT, CONTINUATION, &sql);
            (editor, entered)
        };
        let entered;
        (editor, entered) = tokio::task::spawn_blocking(reading)
            .await
            .map_err(|error| Failure::Failed(format!("the terminal cannot be read: {error}")))?;
        let entered = entered.map_err(|error| Failure::Failed(format!("the terminal cannot be read: {error}")))?;
        let text = match entered {
            Entered::Text(text) => text,
            Entered::Interrupted => continue,
            Entered::End => break,
        };
        let typed = text.trim_end();
        if editor.newest() != Some(typed) && history.keep(typed) {
            editor.remember(typed);
        }
        match prompt.obey(&text).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(failure) => {
                let _ = failure.report();
            }
        }
    }
    if let Some(mut results) = prompt.output.take() {
        results.sink.flush()?;
    }
    prompt.link.close().await;
    Ok(())
}

/// Ends the program in order when it is told to or its terminal is closed: the terminal is then as it was.
fn leave_when_told(restore: impl Fn() + Send + 'static) {
    // Where the signals cannot be heard they keep their usual effect. They are heard from here on, before the first line is shown.
    let (Ok(mut told), Ok(mut closed)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        return;
    };
    tokio::spawn(async move {
        let code = tokio::select! {
            _ = told.recv() => 143,
            _ = closed.recv() => 129,
        };
        restore();
        process::exit(code);
    });
}

/// What a prompt remembers from one statement to the next.
struct Prompt {
    link: Link,
    interrupts: Interrupts,
    format: Format,
    timing: bool,
    /// The file that results go to.
    output: Option<Results<BufWriter<File>>>,
    /// The statements that were run last.
    last: Option<String>,
}

impl Prompt {
    /// Does what was typed; false when that is to leave.
    async fn obey(&mut self, text: &str) -> Result<bool, Failure> {
        match command::parse(text).transpose().map_err(Failure::Usage)? {
            None => self.run_text(text).await?,
            Some(Command::Help) => say(command::help().trim_end()),
            Some(Command::Quit) => return Ok(false),
            Some(Command::Sql(sql)) => self.run_text(&sql).await?,
            Some(Command::File(path)) => self.run_file(&path).await?,
            Some(Command::Output(path)) => self.send_to(path.as_deref())?,
            Some(Command::Format(format)) => self.set_format(format)?,
            Some(Command::Expanded) => self.set_format(Some(match self.format {
                Format::Vertical => Format::Aligned,
                _ => Format::Vertical,
            }))?,
            Some(Command::Timing(timing)) => {
                self.timing = timing.unwrap_or(!self.timing);
                say(if self.timing { "timing is on" } else { "timing is off" });
            }
            Some(Command::Watch(pause)) => self.watch(pause).await?,
        }
        Ok(true)
    }

    /// Runs statements in turn; the first that fails ends it.
    async fn run_text(&mut self, text: &str) -> Result<(), Failure> {
        let statements = split(text);
        if !statements.is_empty() {
            self.last = Some(text.to_owned());
        }
        for statement in &statements {
            let mut interrupt = self.interrupts.next();
            self.run_one(statement, &mut interrupt).await?;
        }
        Ok(())
    }

    async fn run_file(&mut self, path: &Path) -> Result<(), Failure> {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::Usage(format!(
                "the statements in `{}` cannot be read: {error}",
                path.display()
            ))
        })?;
        self.run_text(text.strip_prefix('\u{feff}').unwrap_or(&text)).await
    }

    async fn run_one(&mut self, statement: &Statement<'_>, interrupt: &mut Interrupt) -> Result<(), Failure> {
        let done = self.try_one(statement, interrupt).await;
        if let Err(failure) = &done {
            self.link.doubt(failure);
        }
        done
    }

    async fn try_one(&mut self, statement: &Statement<'_>, interrupt: &mut Interrupt) -> Result<(), Failure> {
        let screen = screen_size();
        let progress = Progress::begin(screen.0);
        let done = self.run_shown(statement, interrupt, screen, &progress).await;
        progress.erase();
        done
    }

    async fn run_shown(
        &mut self,
        statement: &Statement<'_>,
        interrupt: &mut Interrupt,
        screen: (usize, usize),
        progress: &Progress,
    ) -> Result<(), Failure> {
        let connection = interrupt.or(self.link.connection()).await??;
        progress.connected(connection.another());
        let start = Instant::now();
        let planned = |query_id: &[u8]| progress.planned(query_id);
        let (elapsed, done) = match &mut self.output {
            Some(results) => {
                let done = run_statement(connection, statement, results, interrupt, planned).await;
                results.sink.flush()?;
                (start.elapsed(), done)
            }
            None => {
                let mut results = Results::new(self.format, Screen::new(screen, progress.clone())).with_types();
                let done = run_statement(connection, statement, &mut results, interrupt, planned).await;
                progress.erase();
                // However long somebody then reads in the pager.
                let elapsed = start.elapsed();
                let finished = results.sink.finish();
                match done {
                    // Who leaves the pager has seen enough.
                    Err(Failure::Output(error)) if error.is_broken_pipe() => return Ok(()),
                    done => (elapsed, finished.map_err(Failure::from).and(done)),
                }
            }
        };
        let rows = done?;
        if self.link.learn(statement.text) {
            self.link.fetch_names();
        }
        if rows.is_none() && !self.timing {
            say("done");
        }
        if self.timing {
            say_time(elapsed, rows);
        }
        Ok(())
    }

    /// Sends results to a file, or to the screen again.
    fn send_to(&mut self, path: Option<&Path>) -> Result<(), Failure> {
        if let Some(mut results) = self.output.take() {
            results.sink.flush()?;
        }
        let Some(path) = path else {
            if self.format.is_binary() {
                self.set_format(Some(Format::Aligned))?;
            }
            return Ok(());
        };
        let file = File::create(path)
            .map_err(|error| Failure::Usage(format!("`{}` cannot be written: {error}", path.display())))?;
        self.output = Some(Results::new(self.format, BufWriter::new(file)));
        Ok(())
    }

    /// Chooses a format, or says which one is chosen.
    fn set_format(&mut self, format: Option<Format>) -> Result<(), Failure> {
        if let Some(format) = format {
            if format.is_binary() && self.output.is_none() {
                return Err(Failure::Usage(
                    "this format is no text; send it to a file first, like `\\o result.parquet`".to_owned(),
                ));
            }
            self.format = format;
            if let Some(results) = &mut self.output {
                results.format = format;
            }
        }
        say(&format!("the format is {}", self.format.name()));
        Ok(())
    }

    /// Runs the last statements again and again until Ctrl-C, which is how it ends well.
    async fn watch(&mut self, pause: Duration) -> Result<(), Failure> {
        let Some(text) = self.last.clone() else {
            return Err(Failure::Usage(
                "there is no statement to watch yet; run one first".to_owned(),
            ));
        };
        let mut interrupt = self.interrupts.next();
        loop {
            say(&format!("every {} s, Ctrl-C ends it:", pause.as_secs_f64()));
            for statement in &split(&text) {
                match self.run_one(statement, &mut interrupt).await {
                    Err(Failure::Interrupted) => return Ok(()),
                    done => done?,
                }
            }
            if interrupt.or(tokio::time::sleep(pause)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Says something that is no result.
fn say(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn screen_size() -> (usize, usize) {
    File::open(PathBuf::from("/dev/tty")).map_or((80, 24), |terminal| size(&terminal))
}

/// Whether colours are wanted: `NO_COLOR` with any text in it says no, and so does a terminal that knows nothing.
fn is_coloured() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// What the line editor is told about SQL.
struct Sql {
    names: Names,
    is_coloured: bool,
}

impl Helper for Sql {
    fn is_complete(&self, text: &str) -> bool {
        is_finished(text) || text.trim_start().starts_with('\\') || command::is_command(text)
    }

    fn complete(&self, text: &str, cursor: usize) -> Completion {
        complete::complete(text, cursor, &self.names.get())
    }

    fn styles(&self, text: &str) -> Vec<(usize, Style)> {
        if self.is_coloured {
            highlight::styles(text)
        } else {
            Vec::new()
        }
    }

    fn prompt_style(&self) -> Style {
        if self.is_coloured { Style::Prompt } else { Style::Plain }
    }
}
