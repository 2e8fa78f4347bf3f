"""One sentence for each log event, for people: the `message` of a JSON line, and a row on a console.

A template takes the fields of its event, bound ids among them; `{count:message}` is a number with its noun. Of several
templates the first one whose fields are all there is taken. A test compares the table with the events of the code.
"""

from collections.abc import Mapping

from schemas.text import plain

MOST_CHARACTERS = 600
"""Reasons quote answers of services; the whole text is in the event's own field."""

SENTENCES: Mapping[str, str | tuple[str, ...]] = {
    "adoption.failed": "Looking for forwarded messages failed, and is tried again: {reason}",
    "adoption.pull_failed": "Pulling forwarded messages failed, and is tried again: {reason}",
    "adoption.refused": "Forwarded messages cannot be pulled, next look in {retry_in_seconds:.0f} s: {reason}",
    "adoption.resumed": "Forwarded messages can be pulled again",
    "artefact.not_looked_at": "{uri} could not be looked at and counts as there: {reason}",
    "audio.downloaded": "Downloaded {bytes:byte} of {uri}",
    "audio.each_frame": "Decoding anew frame by frame from second {from_second:.1f}: the faster way was in doubt",
    "audio.other_tracks": "The audio track {taken} is silent and track {loud} is not",
    "audio.replaced": "{uri} was replaced during the download, and is read anew",
    "audio.several_threads": "Decoding anew in packets from second {from_second:.1f}: the faster way was in doubt",
    "audio.undivided": "Decoding in one piece from second {from_second:.1f}: its parts did not fit together",
    "audio.unpacked": "Unpacked gzip data of {bytes:byte}",
    "backlog.unknown": "The backlog cannot be read ({hint}): {reason}",
    "budget.reserved": "Reserved ${usd:.4f} of the day's Deepgram budget, ${reserved_usd:.4f} in all",
    "check.done": "{check}: {detail}",
    "checkpoint.foreign": "The checkpoint {uri} is not of this audio and these settings, and is ignored",
    "checkpoint.too_late": "Removed the checkpoint {uri}, written after the job had been completed",
    "chunk.budget_spent": "Chunk {chunk} may not go to Deepgram: {reason}",
    "chunk.deepgram_down": "Chunk {chunk} cannot go to Deepgram: {reason}",
    "chunk.done": "Chunk {chunk} is done, by {engine}",
    "chunk.doubtful": "Chunk {chunk} keeps a doubtful transcript, {code}: {reason}",
    "chunk.fallback": "Parakeet could not do chunk {chunk}, {code}: {reason}",
    "chunk.gap_left": "A gap of chunk {chunk} could not be mended by Deepgram, {code}: {reason}",
    "chunk.gaps": "Chunk {chunk} had {found:gap} without words in speech: {mended} mended, {left} left",
    "chunk.gaps_not_recognised": "The gaps of chunk {chunk} could not be recognised again, {code}: {reason}",
    "chunk.gates_failed": "The transcript of chunk {chunk} fails quality gates: {gates}",
    "chunk.kept_when_cancelled": "Chunk {chunk} was answered during the stop, and its checkpoint is written",
    "chunk.not_kept_when_cancelled": "Chunk {chunk} was answered during the stop, and its checkpoint is not written",
    "chunk.resumed": "Chunk {chunk} is taken from its checkpoint, by {engine}",
    "chunk.started": "Chunk {chunk} has begun",
    "chunk.step": (
        "Chunk {chunk}: {step} failed after {seconds:.1f} s, {failed}: {reason}",
        "Chunk {chunk}: {step} took {seconds:.1f} s",
    ),
    "claim.heartbeat_failed": "A heartbeat of the claim could not be written: {reason}",
    "claim.lost": "The claim is lost: {reason}",
    "claim.not_ours_to_release": "The claim belongs to another worker by now",
    "claim.not_released": "The claim could not be released and becomes stale by itself: {reason}",
    "claim.taken_over": "Taken over from {taken_from}, whose claim had no heartbeat for {stood_still_seconds:.0f} s",
    "consumer.died": "A background task ended by an error, and the worker ends: {where}",
    "consumer.stopped": "Every message is settled or given back, {left_behind:job} left behind",
    "consumer.stopping": "Stopping on {reason}, with {unsettled:message} in work",
    "dead_letter.ack_failed": "A dead letter could not be acknowledged and comes again: {reason}",
    "dead_letter.adopted": "Adopted a message that Pub/Sub gave up after {deliveries} deliveries",
    "dead_letter.extension_failed": "The leases of dead letters could not be extended: {reason}",
    "dead_letter.left": "A forwarded message is left for later: {reason}",
    "dead_letter.not_adopted": "A forwarded message could not be adopted: {reason}",
    "dead_letter.release_failed": "Dead letters could not be given back and come again when their leases end: {reason}",
    "deepgram.answered_when_cancelled": "Deepgram's answer came during the stop, and is kept",
    "deepgram.circuit_closed": "Deepgram answers again",
    "deepgram.circuit_opened": "Deepgram gets no requests for {pause_seconds:.0f} s: {reason}",
    "deepgram.failed": "Deepgram failed after {wasted_requests:request} that may be billed, ${wasted_usd:.4f}",
    "deepgram.keyterms_ignored": "Deepgram's model {model} takes no keyterms, and gets none",
    "deepgram.keyterms_left_out": "Left out {count:keyterm} beyond those that Deepgram takes",
    "deepgram.keyterms_refused": "Deepgram refused a chunk because of its keyterms, so it is sent without: {reason}",
    "deepgram.retry": "Asking Deepgram again in {wait_seconds:.1f} s, attempt {attempt} failed: {reason}",
    "delivery.ack_failed": "The message could not be acknowledged and comes again: {reason}",
    "delivery.cancelled": "The job was cancelled although nothing stopped it, and goes back to the queue",
    "delivery.crashed_again": "The job met the same fault of the worker again, which counts as a crash: {reason}",
    "delivery.deferred": "Goes back to the queue and counts no attempt: {reason}",
    "delivery.failed": "The attempt failed: {reason}",
    "delivery.nack_failed": "The message could not be given back and comes again when its lease ends: {reason}",
    "delivery.nacked": ("{count:message} could not be given back: {error}", "Gave {count:message} back to the queue"),
    "delivery.received": "Received message {message_id}, {age_seconds:.0f} s after it was published",
    "delivery.settled": "The message is settled after {seconds:.1f} s: {outcome}",
    "delivery.surplus": "Gave {count:message} back, for which there was no slot any more",
    "delivery.verdict_unrecorded": "The failure could not be recorded, and the message goes back: {reason}",
    "embedded_deepgram.started": "A stand-in for Deepgram serves on {url}, for development only",
    "embedded_gcs.started": "A stand-in for Cloud Storage serves on {url}, for development only",
    "embedded_pubsub.started": "A stand-in for Pub/Sub serves on {target}, in memory, for development only",
    "engine.calibration_of_another_model": "{file} is the calibration of another model and is not used",
    "engine.doubted": (
        "Parakeet is in doubt and gets no jobs: {reason}",
        "Parakeet is in doubt and gets no jobs, after {failures_in_a_row:failure} in a row",
    ),
    "engine.loaded": "Loaded the model in {load_seconds:.1f} s and warmed up in {warm_up_seconds:.1f} s, on {device}",
    "engine.loading": (
        "Loading the model {model} ({phase})",
        "Warming the model up on {device}",
    ),
    "engine.note_not_believed": "The checksum note beside {file} is not used: {reason}",
    "engine.precision_differs": "The model stores {stored} and is used in {used}: `prepare` makes it load faster",
    "engine.probe_failed": "Parakeet failed its test, next one in {retry_in_seconds:.0f} s: {reason}",
    "engine.process_failed": "The inference process ends by an error, {code}: {reason}",
    "engine.process_lost": "The inference process was lost: {reason}",
    "engine.replaced": "A new inference process serves, number {restarts} after the first: {reason}",
    "engine.runtime_imported": "The model runtime is there after {seconds:.1f} s",
    "engine.served_by_nemo": "NeMo serves this model: {reason}",
    "engine.start_failed": "No inference process could be started: {reason}",
    "engine.started": "The inference process serves, pid {pid}",
    "engine.supervisor_failed": "The engine's supervisor ended by an error",
    "engine.trusted": "Parakeet works again and gets jobs",
    "engine.window_quarantined": "A window broke several inference processes and is put aside: {reason}",
    "fuse.closed": "The self-test passed, and jobs are pulled as before",
    "fuse.opened": "The self-test failed, and no jobs are pulled: {reason}",
    "fuse.testing": "{failures_in_a_row} jobs failed in a row, so the worker tests itself: {last_error}",
    "gcs.retry": "Cloud Storage failed to {operation} {resource} and is asked again in {wait_seconds:.1f} s: {reason}",
    "gpu.none": "No GPU can be seen: {reason}",
    "gpu.unreadable": "The figures of GPU {gpu} cannot be read: {reason}",
    "health.changed": ("The worker is {status}: {reason}", "The worker is {status}"),
    "health.listening": "Health and page on {url}",
    "intake.resumed": "Jobs are pulled again",
    "intake.stopped": "No jobs are pulled: {reason}",
    "job.concluded_before": "Ended before ({outcome}, run {run}); the same events are published again",
    "job.cost": "Cost ${usd:.6f}; saved against Deepgram alone: {savings_percent:.1f} %",
    "job.done": (
        "Done by {method} in {seconds:.1f} s: {audio_seconds:.1f} s of audio, {speed:.0f}x, {words:word}, ${usd:.4f}",
        "Done by {method} in {seconds:.1f} s: {audio_seconds:.1f} s of audio, {speed:.0f}x, {words:word}",
    ),
    "job.failed": "Failed, {code}: {reason}; {suggested_action}",
    "job.parked": "Waits: {reason}",
    "job.received": "Received, {queued_seconds:.0f} s after it was published: {uri}",
    "job.result_gone": "Run {run} ended, but artefacts are gone, so the job is done again: {missing}",
    "job.routed": "Goes to {method}: {reason}",
    "job.unknown_fields": "Ignored {count:field} of the job, unknown here: {fields}",
    "job.unparked": "Waits no longer",
    "lease.extended": "Extended {leases:lease}",
    "lease.extension_failed": "{leases:lease} could not be extended, which is tried again: {reason}",
    "lease.lost": "The lease of message {message_id} is lost: {reason}",
    "part.broken": "{part} does not work, {code}: {reason}",
    "part.mended": "{part} works again",
    "progress.dropped": "A progress event could not be published and is left out: {reason}",
    "pubsub.permission_untested": "Whether {permission} is granted on {resource} could not be tested: {reason}",
    "pubsub.retry": "Pub/Sub failed to {operation} {resource} and is asked again in {wait_seconds:.1f} s: {reason}",
    "pull.abandoned": "The last pull was given up; messages that it took come again when their leases end",
    "pull.failed": (
        "Pulling failed {failures_in_a_row:time} in a row and is tried again in {retry_in_seconds:.1f} s: {reason}",
        "Pulling failed: {reason}",
    ),
    "pull.urgent_failed": "Pulling urgent jobs failed and is tried again in {retry_in_seconds:.1f} s: {reason}",
    "state.unreadable": "{uri} is no {model} and is not used",
    "waste.not_kept": "What failed chunks cost could not be kept, and is missing in the job's bill: {reason}",
    "worker.no_gpu": "No GPU ({reason}): {consequence}",
    "worker.ready": "Ready: jobs come from {subscription}, the engine is on {device}",
    "worker.start_abandoned": "Start given up on {signal}",
    "worker.starting": "Worker {worker} starts, with {changed}",
    "worker.stopped": "Stopped",
    "worker.usage": "Up for {up_seconds:.0f} s, {idle_percent:.0f} % of it idle, ${instance_usd:.4f} in all",
    "workspace.leftover_removed": "Removed {folder}, which a worker that was killed had left",
}


def sentence(event: Mapping[str, object]) -> str:
    """Return a log event in words, after the id of its job; its name where the table has no words."""
    known = {name: _in_words(value) for name, value in event.items() if value not in (None, "")}
    templates = SENTENCES.get(str(event.get("event")), ())
    for template in (templates,) if isinstance(templates, str) else templates:
        try:
            text = template.format_map(known)
        except (KeyError, TypeError, ValueError):  # a field is missing, or is not of the usual type
            continue
        return plain(f"{known['job_id']}: {text}" if "job_id" in known else text, MOST_CHARACTERS)
    return plain(event.get("event", ""), MOST_CHARACTERS)


class _Count(int):
    """A number that is formatted with a noun: `{count:message}` is `1 message` or `2 messages`."""

    def __format__(self, form: str) -> str:
        is_noun = len(form) > 1 and form.isalpha()
        return f"{int(self):,} {form}{'s' * (self != 1)}" if is_noun else super().__format__(form)


def _in_words(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return _Count(value)
    return ", ".join(str(part) for part in value) if isinstance(value, list | tuple | set | frozenset) else value
