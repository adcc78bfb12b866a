/**
 * The far side of sessions in a process of its own: each stream says with its first byte what is to become of it.
 *
 * Invariant: what it was told of a session it tells its parent when that has closed, faults of the transport's promises included.
 */
import type { Session } from "../../src/transport/session.ts";
import { echo, open, SessionRecord, StreamRecord } from "./parties.ts";
import { ASK, FAR_DATAGRAM, FAR_STREAM, type SessionOptions, type SessionReport } from "./session-asks.ts";
import { transportOf } from "./under-test.ts";

process.once("disconnect", () => process.exit(0));
process.once("message", (options: SessionOptions) => {
  void run(options);
});

async function run({ scheme, ...limits }: SessionOptions): Promise<void> {
  const listener = await transportOf(scheme).listen(new URL(`${scheme}://127.0.0.1:0`), {
    ...limits,
    accept: (session) => {
      const record = new SessionRecord(() => served(session));
      record.session = session;
      void session.closed.then(({ code, reason, by }) => {
        const resets = record.streams.map(({ resetCode }) => resetCode);
        process.send?.({ close: { code, reason, by }, resets, faults: record.faults } satisfies SessionReport);
      });
      return record;
    },
  });
  process.send?.({ address: listener.address.href });
}

/** Does what the stream asks for. */
function served(session: Session): StreamRecord {
  const echoing = echo();
  let asked = 0;
  return new StreamRecord(
    (chunk, record) => {
      echoing.stream = record.stream;
      const isFirst = asked === 0;
      if (isFirst) asked = chunk[0] as number;
      const rest = isFirst ? chunk.subarray(1) : chunk;
      const code = chunk[1] ?? 0;
      if (asked === ASK.ECHO) return void record.stream.write(rest);
      if (!isFirst || asked === ASK.COUNT) return;
      // Not from inside of what a session tells.
      setImmediate(() => act(session, record, asked, code));
    },
    ({ stream, bytes }) => {
      if (asked === ASK.COUNT) stream.write(Buffer.from(String(bytes)));
      stream.end();
    },
  );
}

function act(session: Session, { stream }: StreamRecord, asked: number, code: number): void {
  if (asked === ASK.RESET) return stream.reset(code);
  if (asked === ASK.DATAGRAM) return void session.sendDatagram(FAR_DATAGRAM);
  if (asked === ASK.CLOSE) return session.close({ code, reason: "enough" });
  if (asked === ASK.WHO) return void stream.write(session.remote.certificate ?? new Uint8Array(0));
  const far = open(session, "openUnidirectional");
  far.stream.write(FAR_STREAM);
  far.stream.end();
}
