/** Baseline: Moleculer's TCP transporter, when the package is installed: a service in a second process that gives back what it is called with. */

/** What is used of a broker. */
interface Broker {
  createService(schema: object): unknown;
  start(): Promise<void>;
  stop(): Promise<void>;
  waitForServices(names: string, timeoutMs: number): Promise<unknown>;
  call(action: string, params: object): Promise<unknown>;
}
type BrokerClass = new (options: object) => Broker;

const PORTS = "BENCH_MOLECULER_PORTS";
const START_MS = 20_000;

/** A caller of the service. */
export interface MoleculerCaller {
  echo(text: string): Promise<string>;
  close(): Promise<void>;
}

async function brokerOf(name: "a" | "b", ports: string): Promise<Broker | undefined> {
  let ServiceBroker: BrokerClass;
  try {
    ({ ServiceBroker } = (await import("moleculer")) as unknown as { ServiceBroker: BrokerClass });
  } catch {
    return undefined; // not installed: the bench says so and goes on
  }
  const [a, b] = ports.split(",");
  const options = { udpDiscovery: false, urls: [`127.0.0.1:${a}/a`, `127.0.0.1:${b}/b`] };
  return new ServiceBroker({ nodeID: name, logger: false, transporter: { type: "TCP", options } });
}

/** What the second process is started with. */
export function moleculerEnvironment(ports: readonly [number, number]): Record<string, string> {
  return { [PORTS]: ports.join() };
}

/** The second process: serves until it is killed. */
export async function serveMoleculer(): Promise<void> {
  const broker = await brokerOf("b", process.env[PORTS] ?? "");
  broker?.createService({
    name: "mirror",
    actions: { echo: (context: { params: { text: string } }) => context.params.text },
  });
  await broker?.start();
}

/** Calls the service of the second process; undefined when the package is not installed. */
export async function openMoleculer(ports: readonly [number, number]): Promise<MoleculerCaller | undefined> {
  const broker = await brokerOf("a", ports.join());
  if (broker === undefined) return undefined;
  await broker.start();
  await broker.waitForServices("mirror", START_MS);
  return {
    echo: (text) => broker.call("mirror.echo", { text }) as Promise<string>,
    close: () => broker.stop(),
  };
}
