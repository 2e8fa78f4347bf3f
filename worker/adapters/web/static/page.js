// Everything can be read without this file. It copies commands, keeps the page current, uploads, and plays the audio.
"use strict";
const one = (query) => document.querySelector(query);
const all = (query) => [...document.querySelectorAll(query)];
const clock = (s) => [s / 3600, s / 60 % 60, s % 60].map((n, i) => String(Math.floor(n)).padStart(i ? 2 : 1, "0")).join(":");

// --- copying: plain http from another machine has no clipboard; the text is selected there

document.addEventListener("click", async ({ target }) => {
  const button = target.closest("[data-copy]");
  if (!button) return;
  const from = button.previousElementSibling;
  const copied = await navigator.clipboard?.writeText(from.textContent).then(() => true, () => false);
  if (!copied) return getSelection().selectAllChildren(from);
  button.textContent = one("#said").textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; one("#said").textContent = ""; }, 2000);
});

// --- updates: the server sends the main part again where it changed; only what differs is touched

const LOST_SECONDS = 5;
let heardAt = Date.now();

function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.hasAttribute("data-keep") || old.isEqualNode(fresh)) return;
  for (const { name, value } of [...fresh.attributes]) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(old.nodeName === "DETAILS" && name === "open")) old.removeAttribute(name);
  }
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {  // elements with an id keep their place in life, whatever comes before them
  const known = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const node of [...fresh.childNodes]) {
    const here = at && !at.id && at.nodeName === node.nodeName ? at : null;
    const match = node.id ? known.get(node.id) : here;
    if (!match) { old.insertBefore(node, at); continue; }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    morph(match, node);
  }
  while (at) { const next = at.nextSibling; at.remove(); at = next; }
}

function listen(address) {
  let source;
  const heard = () => {
    heardAt = Date.now();
    const now = one("#clock");
    if (now) now.textContent = new Date().toISOString().slice(11, 19) + " UTC";
  };
  const show = ({ data }) => {
    heard();
    const html = JSON.parse(data);
    if (!html) return;
    const fresh = document.createElement("main");
    fresh.id = "main";
    fresh.innerHTML = html;
    morph(one("#main"), fresh);
    document.title = [one("h1").textContent, "klipstream-worker"].join(": ");
    startPlayer();
  };
  const open = () => {
    heardAt = Date.now();
    source = new EventSource(address);
    source.addEventListener("alive", heard);
    source.addEventListener("main", show);
    source.addEventListener("release", ({ data }) => { if (data !== document.body.dataset.release) location.reload(); });
  };
  open();
  // a browser opens six connections to a host at most: tabs that nobody sees must not hold them
  document.addEventListener("visibilitychange", () => document.hidden ? source.close() : open());
  setInterval(() => {
    if (document.hidden) return;
    const silent = Math.round((Date.now() - heardAt) / 1000), lost = one("#lost");
    document.documentElement.toggleAttribute("data-lost", silent >= LOST_SECONDS);
    lost.hidden = silent < LOST_SECONDS;
    if (silent < LOST_SECONDS) { lost.textContent = ""; return; }
    if (!lost.textContent) lost.textContent = `No answer since ${new Date(heardAt).toISOString().slice(11, 19)} UTC`;
    if (source.readyState === EventSource.CLOSED && silent % 5 === 0) location.reload();
  }, 1000);
}

if (document.body.dataset.updates) listen(document.body.dataset.updates);

// --- uploading: in `dev` alone the page has a place for files

async function upload(file) {
  const said = one("#upload").appendChild(document.createElement("p"));
  said.append(`Uploading ${file.name}…`);
  try {
    const answer = await fetch(`/upload?name=${encodeURIComponent(file.name)}`, {
      method: "POST", headers: { "x-klipstream": "upload" }, body: file,
    });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error ?? `status ${answer.status}`);
    const link = document.createElement("a");
    link.href = `/jobs/${encodeURIComponent(told.job_id)}`;
    link.textContent = told.job_id;
    said.replaceChildren(`${file.name} is submitted as `, link);
  } catch (error) {
    said.replaceChildren(`${file.name} is not submitted: ${error.message}`);
  }
}

document.addEventListener("change", ({ target }) => {
  if (target.id === "file" && target.files[0]) upload(target.files[0]);
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    const place = one("#drop");
    if (!place) return;
    event.preventDefault();
    place.classList.toggle("over", name === "dragover");
    if (name === "drop") [...event.dataTransfer.files].forEach(upload);
  });
}

// --- the transcript: search, and the audio under the words

function startPlayer() {
  const section = one("#words");
  if (!section || section.dataset.started) return;
  section.dataset.started = "yes";
  const words = all("#words [data-t]"), times = words.map((word) => +word.dataset.t);
  search(words);
  const audio = one("#words audio");
  if (audio) play(audio, words, times);
}

function play(audio, words, times) {
  const text = one("#text"), button = one("#play"), seek = one("#seek");
  const wordAt = (s) => times.findLastIndex((time) => time <= s);
  const go = (s) => { audio.currentTime = s; show(); };
  let now = null;
  function show() {
    const s = audio.currentTime, word = words[wordAt(s + 0.01)];
    seek.value = s;
    seek.setAttribute("aria-valuetext", clock(s));
    one("#at").textContent = clock(s);
    if (word === now) return;
    now?.classList.remove("now");
    word?.classList.add("now");
    now = word;
    const box = now?.getBoundingClientRect();
    if (box && !audio.paused && (box.top < 80 || box.bottom > innerHeight - 120)) now.scrollIntoView({ block: "center" });
  }
  audio.controls = false;
  one("#controls").hidden = false;
  const tick = () => { show(); if (!audio.paused) requestAnimationFrame(tick); };
  audio.onplay = audio.onpause = () => {
    button.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
    button.querySelector("path").setAttribute("d", audio.paused ? "M5 3l9 6-9 6z" : "M4 3h4v12H4zM10 3h4v12h-4z");
    tick();
  };
  audio.onseeked = show;
  button.onclick = () => audio.paused ? audio.play() : audio.pause();
  seek.oninput = () => go(+seek.value);
  one("#rate").onchange = ({ target }) => { audio.playbackRate = +target.value; };
  text.onclick = ({ target }) => {
    const spot = target.closest("[data-t], [data-from]");
    if (spot) { go(+(spot.dataset.t ?? spot.dataset.from)); audio.play(); }
  };
  text.onkeydown = (event) => {  // one tab stop for all words: the arrows go from word to word
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { event.preventDefault(); go(times[wordAt(audio.currentTime + 0.01) + step] ?? audio.currentTime); }
    if (event.key === " " && event.target === text) { event.preventDefault(); button.click(); }
  };
}

function search(words) {
  const find = one("#find"), found = one("#found");
  const plain = words.map((word) => word.textContent.toLowerCase().replace(/[^\p{L}\p{N}' ]/gu, ""));
  let hits = [], at = 0;
  const mark = () => {
    hits.forEach((run, i) => run.forEach((word) => word.classList.toggle("here", i === at)));
    hits[at]?.[0].scrollIntoView({ block: "center" });
    found.textContent = hits.length ? `${at + 1} of ${hits.length}` : find.value.trim() && "not found";
  };
  find.oninput = () => {
    const wanted = find.value.toLowerCase().trim().split(/\s+/).filter(Boolean);
    hits.flat().forEach((word) => word.classList.remove("hit", "here"));
    const fits = (i) => wanted[0] && wanted.every((part, k) => plain[i + k]?.startsWith(part));
    hits = words.flatMap((_, i) => fits(i) ? [words.slice(i, i + wanted.length)] : []);
    hits.flat().forEach((word) => word.classList.add("hit"));
    at = 0;
    mark();
  };
  find.onkeydown = ({ key, shiftKey }) => {
    if (key !== "Enter" || !hits.length) return;
    at = (at + (shiftKey ? hits.length - 1 : 1)) % hits.length;
    mark();
  };
}

startPlayer();
