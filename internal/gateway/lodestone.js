/* Lodestone: posts <form data-lodestone> without leaving the page. Nothing is lost when the network
   is away: what was sent waits in this browser's storage, under one idempotency key, until it is
   acknowledged. No cookies, no dependencies. Events on the form: lodestone:done {id, asset},
   lodestone:waiting, lodestone:refused {errors, detail}. */
(() => {
  'use strict';
  if (window.lodestone) return;
  const QUEUE = 'lodestone.queue', FIRST = 'lodestone.utm.first', LAST = 'lodestone.utm.last';
  const WEEK = 6048e5, AGAIN = 6e4;
  const memory = {};
  const storage = (() => {
    try { localStorage.setItem('lodestone', '1'); localStorage.removeItem('lodestone'); return localStorage; }
    catch { return { getItem: k => memory[k] ?? null, setItem: (k, v) => { memory[k] = v; } }; }
  })();
  const read = (key, none) => { try { return JSON.parse(storage.getItem(key)) ?? none; } catch { return none; } };
  const write = (key, value) => {
    const text = JSON.stringify(value);
    try { storage.setItem(key, text); } catch { memory[key] = text; }
  };
  const queue = () => read(QUEUE, []).filter(e => Date.now() - e.at < (e.done ? AGAIN : WEEK));
  const keep = entry => write(QUEUE, [...queue().filter(e => e.key !== entry.key), entry]);
  const drop = key => write(QUEUE, queue().filter(e => e.key !== key));

  const newKey = () => crypto.randomUUID ? crypto.randomUUID()
    : Array.from(crypto.getRandomValues(new Uint8Array(16)), b => b.toString(16).padStart(2, '0')).join('');

  // Where the visitor came from: the first time, and the last time that an address said so.
  const query = new URLSearchParams(location.search);
  const utm = {};
  for (const name of ['source', 'medium', 'campaign', 'term', 'content']) {
    const value = query.get('utm_' + name);
    if (value) utm[name] = value;
  }
  if (Object.keys(utm).length) {
    if (!storage.getItem(FIRST)) write(FIRST, utm);
    write(LAST, utm);
  }

  const put = (into, path, value) => {
    const last = path.pop();
    for (const name of path) into = into[name] = typeof into[name] === 'object' ? into[name] : {};
    into[last] ??= value;
  };

  // A token says when the form was shown. Without one the form is sent all the same.
  const tokens = new Map();
  const ask = async form => {
    if (tokens.has(form)) return;
    tokens.set(form, undefined);
    try {
      const response = await fetch(form.action.replace(/\/forms\/([^/?#]+).*$/, '/tokens/$1'), { credentials: 'omit' });
      if (response.ok) tokens.set(form, (await response.json()).token);
    } catch { tokens.delete(form); }
  };
  for (const form of document.querySelectorAll('form[data-lodestone]')) ask(form);
  document.addEventListener('focusin', e => { const f = e.target.closest?.('form[data-lodestone]'); if (f) ask(f); });

  const collect = (form, submitter) => {
    const fields = {}, context = {};
    const data = new FormData(form);
    if (submitter?.name) data.append(submitter.name, submitter.value);
    for (const [name, value] of data) {
      if (typeof value !== 'string') continue; // files are not taken
      if (name.startsWith('context.')) put(context, name.slice(8).split('.'), value);
      else fields[name] = fields[name] && value && fields[name] !== value ? fields[name] + ', ' + value : fields[name] || value;
    }
    const box = form.elements['context.consent.marketing'];
    if (box) {
      context.consent ??= {};
      if (box.type === 'checkbox') context.consent.marketing = box.checked;
      context.consent.text ??= (box.labels?.[0]?.textContent ?? '').replace(/\s+/g, ' ').trim();
      context.consent.at ??= new Date().toISOString();
    }
    context.page ??= location.origin + location.pathname;
    context.timezone ??= Intl.DateTimeFormat().resolvedOptions().timeZone;
    context.utm ??= read(LAST, undefined);
    context.utm_first ??= read(FIRST, undefined);
    context.referral_code ??= query.get('referral_code') ?? query.get('ref') ?? undefined;
    context.token ??= tokens.get(form);
    delete context.thanks; // for browsers without script
    return { fields, context };
  };

  const show = (form, kind, text, detail) => {
    form.dispatchEvent(new CustomEvent('lodestone:' + kind, { bubbles: true, detail }));
    let box = form.querySelector('[data-lodestone-status]');
    if (!box) {
      box = document.createElement('p');
      box.setAttribute('data-lodestone-status', '');
      form.append(box);
    }
    box.setAttribute('role', kind === 'refused' ? 'alert' : 'status');
    box.textContent = form.getAttribute('data-' + kind) ?? text;
    return box;
  };

  const clear = form => {
    for (const e of form.querySelectorAll('[data-lodestone-fault]')) e.remove();
    for (const e of form.querySelectorAll('[aria-invalid]')) { e.removeAttribute('aria-invalid'); e.removeAttribute('aria-describedby'); }
  };

  const refused = (form, problem) => {
    let first;
    for (const fault of problem.errors ?? []) {
      const input = form.elements[fault.field];
      const at = input?.tagName ? input : input?.[0];
      if (!at) continue;
      const note = document.createElement('span');
      note.setAttribute('data-lodestone-fault', fault.field);
      note.id = 'lodestone-fault-' + fault.field;
      note.textContent = ' ' + (fault.message || fault.detail);
      at.setAttribute('aria-invalid', 'true');
      at.setAttribute('aria-describedby', note.id);
      at.after(note);
      first ??= at;
    }
    first?.focus();
    show(form, 'refused', first ? 'Please correct what is marked and send it again.' : problem.detail || 'This could not be taken.', problem);
  };

  const taken = (form, answer) => {
    const box = show(form, 'done', 'Thank you.', answer);
    if (!answer.asset) return;
    const links = document.querySelectorAll('[data-lodestone-asset]');
    for (const a of links) { a.href = answer.asset; a.hidden = false; }
    if (links.length) return;
    const a = document.createElement('a');
    a.href = answer.asset;
    a.rel = 'noreferrer';
    a.textContent = 'Open what you asked for';
    box.append(' ', a);
  };

  // send tries one entry. It stays in the queue unless the answer is final.
  const send = async entry => {
    let response;
    try {
      response = await fetch(entry.url, {
        method: 'POST', mode: 'cors', credentials: 'omit', cache: 'no-store', keepalive: entry.body.length < 6e4,
        headers: { 'Content-Type': 'application/json', 'Idempotency-Key': entry.key }, body: entry.body,
      });
    } catch { return { waiting: true }; }
    if (response.status >= 500 || response.status === 408 || response.status === 429) return { waiting: true };
    const answer = await response.json().catch(() => ({}));
    if (response.ok) keep({ ...entry, at: Date.now(), done: true });
    else drop(entry.key);
    return response.ok ? { answer } : { problem: answer };
  };

  let pause = 2000, timer, flushing = false;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(flush, pause);
    pause = Math.min(2 * pause, 3e5);
  };
  const flush = async () => {
    if (flushing) return;
    flushing = true;
    let left = false;
    for (const entry of queue().filter(e => !e.done)) {
      const result = await send(entry);
      left ||= !!result.waiting;
      const form = forms.get(entry.key);
      if (form && !result.waiting) finish(form, result);
    }
    flushing = false;
    if (left) later(); else pause = 2000;
  };

  const forms = new Map(); // of this page, by the key that they wait with
  const finish = (form, result) => {
    form.removeAttribute('aria-busy');
    for (const b of form.querySelectorAll('[type=submit],button:not([type])')) b.disabled = false;
    if (result.answer) taken(form, result.answer);
    else refused(form, result.problem);
  };

  document.addEventListener('submit', async event => {
    const form = event.target;
    if (!form.matches?.('form[data-lodestone]') || event.defaultPrevented) return;
    event.preventDefault();
    clear(form);
    const { fields, context } = collect(form, event.submitter);
    const url = form.action, same = JSON.stringify([url, fields, context.consent?.marketing]);
    // The same again, after a reload or a second click, is the same submission.
    const entry = queue().find(e => e.same === same) ?? { key: newKey(), url, same, at: Date.now(), body: JSON.stringify({ fields, context }) };
    keep(entry);
    form.setAttribute('aria-busy', 'true');
    for (const b of form.querySelectorAll('[type=submit],button:not([type])')) b.disabled = true;
    const result = await send(entry);
    if (!result.waiting) { finish(form, result); return; }
    forms.set(entry.key, form);
    form.removeAttribute('aria-busy');
    for (const b of form.querySelectorAll('[type=submit],button:not([type])')) b.disabled = false;
    show(form, 'waiting', 'You seem to be offline. We have kept this and send it as soon as we can.', {});
    later();
  });

  addEventListener('online', () => { pause = 2000; flush(); });
  write(QUEUE, queue());
  flush();
  window.lodestone = { flush };
})();
