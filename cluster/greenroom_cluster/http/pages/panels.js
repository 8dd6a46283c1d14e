// How each part of the cluster's state is shown. What they hold is described in `dashboard/board.py`.

import { bytes, byId, count, duration, make, makeRow, rate, setText, showEach, timeOfDay } from "./dom.js";

/** A sign beside the word for each state: no state is told by its colour alone. */
const SIGNS = {
  whole: "✓",
  up: "✓",
  joining: "↻",
  leaving: "↻",
  alone: "!",
  same_node: "!",
  same_zone: "!",
  unavailable: "✕",
  suspended: "✕",
  down: "✕",
  dead: "✕",
  "no answer": "✕",
};
const LEVELS = { act: "Do", watch: "Watch", none: "Fine" };
const plain = (state) => state.replace("_", " ");

function showState(element, state) {
  element.dataset.state = state;
  setText(element, `${SIGNS[state] ?? "?"} ${plain(state)}`);
}

export function showCluster(cluster) {
  setText(byId("name"), cluster.name);
  document.title = `${cluster.healthy ? "✓" : "✕"} ${cluster.name}: Greenroom`;
  const health = byId("health");
  health.dataset.state = cluster.healthy ? "whole" : "alone";
  setText(health, cluster.healthy ? "✓ healthy" : "! not healthy");
  setText(byId("counts"), `${count(cluster.shards)} shards of ${cluster.replicas} replicas: ${plain(cluster.counts)}`);
  const { state, address, leads } = cluster.coordinator;
  setText(byId("coordinator"), `Coordinator: ${plain(state)}. ${leads || address} (map ${cluster.map})`);
}

export function showAdvice(advised) {
  showEach(
    byId("advised"),
    advised.map((each, index) => ({ ...each, index })),
    (each) => each.index,
    () => make("li", "", make("strong"), make("p"), make("ul", "commands")),
    (item, each) => {
      const [level, text, commands] = item.children;
      item.dataset.level = each.level;
      setText(level, LEVELS[each.level]);
      setText(text, each.text.replaceAll("`", ""));
      showEach(commands, each.commands, (command) => command, makeCommand, showCommand);
    },
  );
}

function makeCommand() {
  const button = make("button", "", "Copy");
  button.type = "button";
  const item = make("li", "", make("code"), button);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(item.dataset.key);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(item.firstChild);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return item;
}

function showCommand(item, command) {
  setText(item.firstChild, command);
  item.lastChild.setAttribute("aria-label", `Copy the command: ${command}`);
}

export function showTiles(cluster, pace) {
  const { records, sessions, traffic } = pace;
  const tiles = [
    ["Sessions", count(cluster.sessions), sessions === null ? "" : `${sessions >= 0 ? "+" : ""}${rate(sessions)}/s`],
    ["Stored", bytes(cluster.stored_bytes), "in primaries"],
    ["Writes", `${rate(records)}/s`, "records of all shards"],
    ["Requests here", `${rate(traffic?.requests_per_second ?? null)}/s`, "reads and writes"],
    ["A step takes", ...timesOf(traffic?.steps)],
    ["Replication takes", ...timesOf(traffic?.replication)],
  ];
  showEach(
    byId("tiles"),
    tiles,
    ([title]) => title,
    () => make("div", "", make("dt"), make("dd"), make("dd", "note")),
    (tile, texts) => texts.forEach((text, index) => setText(tile.children[index], text)),
  );
  const of = pace.of.length ? `Requests and times are those of ${pace.of.join(", ")}: each node's page has its own. ` : "";
  setText(byId("scope"), `${of}Writes are those of the whole cluster.`);
}

function timesOf(times) {
  return times?.count ? [duration(times.mean), `99% below ${duration(times.bound)}`] : ["–", "none measured"];
}

export function showShards(shards) {
  const lacking = shards.filter((shard) => shard.state !== "whole");
  setText(byId("lacking-count"), `${lacking.length} of ${shards.length}`);
  const list = byId("shards");
  list.classList.toggle("dense", shards.length > 64);
  showEach(list, byId("lacking").checked ? lacking : shards, (shard) => shard.shard, makeShard, showShard);
}

function makeShard() {
  return make("li", "", make("strong"), make("span", "state"), make("span", "members"), make("span", "note"));
}

function showShard(item, shard) {
  const [number, state, members, more] = item.children;
  item.dataset.state = shard.state;
  setText(number, shard.shard);
  showState(state, shard.state);
  showMembers(members, shard);
  setText(more, `epoch ${shard.epoch}, ${count(shard.sessions)} sessions`);
  Object.assign(item.dataset, { epoch: shard.epoch, primary: shard.primary, backups: shard.backups.join(" ") });
}

function showMembers(element, shard) {
  const backups = shard.backups.join(", ") || "no backup";
  if (!element.firstChild) element.append(make("span"), make("span", "hidden", " is primary, backup: "), make("span"));
  element.children[2].className = "backup";
  setText(element.children[0], shard.primary || "no primary");
  setText(element.children[2], backups);
}

export function showJoins(joins) {
  byId("no-joins").hidden = joins.length > 0;
  showEach(
    byId("joins"),
    joins,
    (join) => join.shard,
    () => make("li", "", make("span"), make("progress")),
    (item, join) => {
      const [text, progress] = item.children;
      const way = `shard ${join.shard}: ${join.from} → ${join.to || "?"}`;
      const sent = join.of ? `, ${count(join.sent)} of ${count(join.of)} sessions sent` : "";
      setText(text, join.refusal ? `${way}, refused: ${join.refusal}` : way + sent);
      progress.hidden = Boolean(join.refusal);
      progress.max = join.of || 1;
      if (join.of) progress.value = join.sent;
      progress.setAttribute("aria-label", way);
    },
  );
}

const NODE_CELLS = ["", "state", "", "number", "number", "note"];
const ACTOR_CELLS = ["", "state", "number", "number bar", "number", "number", "number", "number note"];

export function showNodes(nodes) {
  showEach(byId("nodes").tBodies[0], nodes, (node) => node.name, () => makeRow(NODE_CELLS), (row, node) => {
    showState(row.cells[1], node.state);
    const texts = [node.name, null, node.zone || "–", count(node.actors), count(node.sessions), node.address];
    showTexts(row, texts);
  });
}

export function showActors(actors) {
  const most = Math.max(1, ...actors.map((actor) => actor.sessions));
  const key = (actor) => `${actor.slot} ${actor.pid} ${actor.state}`;
  showEach(byId("actors").tBodies[0], actors, key, () => makeRow(ACTOR_CELLS), (row, actor) => {
    showState(row.cells[1], actor.state);
    const memory = actor.memory_bytes_max ? `${bytes(actor.used_bytes)} of ${bytes(actor.memory_bytes_max)}` : "–";
    const numbers = [actor.sessions, actor.primaries, actor.backups].map(count);
    showTexts(row, [actor.slot, null, rate(actor.records), ...numbers, memory, actor.pid || "–"]);
    row.cells[3].style.setProperty("--share", `${(100 * actor.sessions) / most}%`);
  });
}

function showTexts(row, texts) {
  texts.forEach((text, index) => text !== null && setText(row.cells[index], text));
}

export function showSkew(skews) {
  showEach(byId("skew"), skews, (each) => each.of, () => make("li", "", make("span"), make("strong"), make("span", "note")), (item, each) => {
    const [what, ratio, more] = item.children;
    setText(what, `Fullest ${each.of}`);
    setText(ratio, each.ratio ? `${rate(each.ratio)} × the mean` : "no sessions");
    const name = each.of === "shard" ? `shard ${each.most_name}` : each.most_name;
    setText(more, each.ratio ? `${name} has ${count(each.most)} of ${rate(each.mean)} on average` : "");
  });
}

export function showPast(transitions) {
  byId("past").hidden = transitions.length === 0;
  byId("no-past").hidden = transitions.length > 0;
  const items = transitions.map((each, index) => ({ ...each, key: transitions.length - index }));
  showEach(byId("past").tBodies[0], items, (each) => each.key, () => makeRow(["", "", ""]), (row, each) => {
    showTexts(row, [timeOfDay(each.at), each.what.replaceAll("->", "→"), each.why || "–"]);
  });
}
