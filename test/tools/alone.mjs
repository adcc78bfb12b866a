/**
 * Lets one test file of those that judge time run at a time, whatever else runs: a file waits here, before its tests begin, until the one before
 * has ended.
 *
 * Invariant: the turn is a socket that the process of the file listens on, so that it is over with the process, however that ends.
 */
import { once } from "node:events";
import { rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const LOOK_MS = 50;
// All processes of one run have the same parent. On Linux the name is in no file system, and goes with its process.
const isNamed = process.platform === "linux";
const path = isNamed ? `\0shardloom-alone-${process.ppid}` : join(tmpdir(), `shardloom-alone-${process.ppid}.sock`);

while (!(await takeTurn())) {
  if (!isNamed && !(await isTaken())) rmSync(path, { force: true }); // whoever had it was killed
  await sleep(LOOK_MS);
}

async function takeTurn() {
  const server = createServer((socket) => socket.destroy());
  server.listen(path);
  server.unref();
  try {
    await once(server, "listening");
    return true;
  } catch (error) {
    if (error.code === "EADDRINUSE") return false;
    throw error;
  }
}

async function isTaken() {
  const socket = connect(path);
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
