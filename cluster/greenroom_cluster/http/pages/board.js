// Keeps what the server has told, and shows it. Each connection begins with everything; then come changes.

import { showChart } from "./chart.js";
import { byId, duration, rate, setText, timeOfDay } from "./dom.js";
import * as panels from "./panels.js";

const KEPT_MS = 300_000;
const STALE_MS = 5_000;
const AGAIN_MS = 5_000;
const QUIET_MS = 5_000;

const parts = new Map();
let points = [];
let heard = Date.now();
let seen = "";
let announced = { text: "", at: 0 };

const SHOWN = {
  advice: panels.showAdvice,
  nodes: panels.showNodes,
  actors: panels.showActors,
  joins: panels.showJoins,
  skew: panels.showSkew,
  transitions: panels.showPast,
};

function shards() {
  const found = [];
  for (let number = 0; parts.has(`shard ${number}`); number += 1) found.push(parts.get(`shard ${number}`));
  return found;
}

function take(look) {
  heard = Date.now();
  for (const [name, value] of Object.entries(look.parts)) parts.set(name, value);
  points.push(...look.points.map((point) => ({ ...point, time: Date.parse(point.at) })));
  if (look.at) seen = timeOfDay(look.at);
  const now = points.at(-1)?.time ?? 0;
  points = points.filter((point) => now - point.time <= KEPT_MS);
  show(Object.keys(look.parts));
  const error = look.error && `The cluster cannot be seen: ${look.error}.`;
  showStale(error);
}

function show(changed) {
  const cluster = parts.get("cluster");
  if (!cluster) return;
  panels.showCluster(cluster);
  panels.showTiles(cluster, parts.get("pace"));
  for (const name of changed) SHOWN[name]?.(parts.get(name));
  if (changed.some((name) => name.startsWith("shard "))) panels.showShards(shards());
  setText(byId("seen"), `Seen at ${seen}`);
  showCharts();
  announce(cluster.healthy ? "Every shard is whole." : `Not healthy: ${cluster.counts}.`);
}

function showCharts() {
  const now = points.at(-1)?.time ?? 0;
  const records = (last, most) =>
    last === null ? "Writes a second: not known yet" : `Writes a second: ${rate(last)} now, ${rate(most)} at most`;
  showChart(byId("records"), points, now, (point) => point.records, records);
  const took = (last, most) =>
    last === null ? "Replication: none measured yet" : `Replication: ${duration(last)} on average now, ${duration(most)} at most`;
  const mean = ({ traffic }) => (traffic?.replication.count ? traffic.replication.mean : null);
  showChart(byId("replication"), points, now, mean, took);
}

/** Have a screen reader say how the cluster is when that has changed, and not at every step of a failover. */
function announce(text) {
  const now = Date.now();
  if (text === announced.text || now - announced.at < QUIET_MS) return;
  announced = { text, at: now };
  setText(byId("announced"), text);
}

function showStale(reason) {
  const stale = byId("stale");
  stale.hidden = !reason;
  document.body.classList.toggle("is-stale", Boolean(reason));
  setText(stale, reason ? `${reason} ${seen ? `What is shown is of ${seen}.` : ""}` : "");
  if (reason) announce(reason);
}

function connect() {
  const source = new EventSource("/dashboard/events");
  source.addEventListener("open", () => {
    parts.clear();
    points = [];
  });
  source.addEventListener("look", (told) => take(JSON.parse(told.data)));
  source.addEventListener("error", () => {
    // Refused for good. A new page asks for a token if that is what it lacks.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), AGAIN_MS);
  });
}

byId("sign-out").addEventListener("click", async () => {
  try {
    await fetch("/dashboard/sign-out", { headers: { "x-greenroom-page": "board" }, cache: "no-store" });
    location.reload();
  } catch {
    showStale("This process does not answer, so this browser is still signed in.");
  }
});
byId("lacking").addEventListener("change", () => panels.showShards(shards()));
setInterval(() => {
  const silent = Date.now() - heard;
  if (silent > STALE_MS) showStale(`Nothing was heard from this process for ${Math.round(silent / 1000)} s.`);
}, 1000);
connect();
