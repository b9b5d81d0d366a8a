"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Theme: follows the system until the reader chooses; the choice is kept where storage is allowed.
  const root = document.documentElement, button = document.getElementById("theme");
  const stored = { read() { try { return localStorage.getItem("windtunnel-theme"); } catch { return null; } },
                   write(value) { try { localStorage.setItem("windtunnel-theme", value); } catch { /* a page on disk may not store */ } } };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  const saved = stored.read();
  if (saved === "light" || saved === "dark") root.dataset.theme = saved;
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; stored.write(root.dataset.theme); name(); });
  system.addEventListener("change", name);
  name();

  // Tabs: panels become alternatives; arrow keys move between them.
  all(".tabs").forEach((tabs, number) => {
    const panels = all(":scope > .panel", tabs), list = document.createElement("div");
    list.className = "tablist"; list.setAttribute("role", "tablist"); list.setAttribute("aria-label", tabs.dataset.title);
    const buttons = panels.map((panel, k) => {
      const tab = document.createElement("button");
      tab.type = "button"; tab.textContent = panel.dataset.tab; tab.id = `tab-${number}-${k}`;
      tab.setAttribute("role", "tab"); panel.id = `panel-${number}-${k}`; tab.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel"); panel.setAttribute("aria-labelledby", tab.id);
      list.append(tab);
      return tab;
    });
    const choose = (chosen) => buttons.forEach((tab, k) => {
      tab.setAttribute("aria-selected", k === chosen); tab.tabIndex = k === chosen ? 0 : -1; panels[k].hidden = k !== chosen;
    });
    buttons.forEach((tab, k) => {
      tab.addEventListener("click", () => choose(k));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = (k + step + buttons.length) % buttons.length;
        choose(next); buttons[next].focus(); event.preventDefault();
      });
    });
    tabs.prepend(list);
    choose(0);
  });

  // Legend: hide and show a series in every drawing of its chart.
  all(".key").forEach((key) => key.addEventListener("click", () => {
    const shown = key.getAttribute("aria-pressed") === "false";
    key.setAttribute("aria-pressed", shown);
    all(`svg g[data-series="${key.dataset.series}"]`, key.closest("figure")).forEach((group) => group.classList.toggle("off", !shown));
  }));

  // Values: the nearest point under the pointer, or arrow keys when the drawing has the focus.
  const tip = document.getElementById("tip");
  let active = null;
  const hide = () => { tip.hidden = true; if (active) active.classList.remove("active"); active = null; };
  const show = (mark) => {
    if (active !== mark) { hide(); active = mark; mark.classList.add("active"); tip.textContent = mark.dataset.tip; }
    tip.hidden = false;
    const box = mark.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const left = box.right + 10 + size.width > innerWidth ? box.left - 10 - size.width : box.right + 10;
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - size.width - 8))}px`;
    tip.style.top = `${Math.max(8, Math.min(box.top - size.height - 6, innerHeight - size.height - 8))}px`;
  };
  const marks = (drawing) => all("[data-tip]", drawing).filter((mark) => !mark.closest(".off"));
  all(".drawing").forEach((drawing) => {
    const point = (event) => {
      let nearest = null, least = 34;
      const scale = drawing.viewBox.baseVal.width / drawing.clientWidth, box = drawing.getBoundingClientRect();
      const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
      for (const mark of marks(drawing)) {
        const distance = Math.hypot(mark.dataset.x - x, mark.dataset.y - y) * (mark.classList.contains("hit") ? 1.6 : 1);
        if (distance < least) { least = distance; nearest = mark; }
      }
      if (nearest) show(nearest); else hide();
    };
    drawing.addEventListener("pointermove", point);
    drawing.addEventListener("pointerdown", point);
    drawing.addEventListener("pointerleave", hide);
    drawing.addEventListener("blur", hide);
    drawing.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      const known = marks(drawing).filter((mark) => !mark.classList.contains("hit"));
      if (!step || known.length === 0) return;
      const at = known.indexOf(active);
      show(known[at < 0 ? (step > 0 ? 0 : known.length - 1) : (at + step + known.length) % known.length]);
      event.preventDefault();
    });
  });
  addEventListener("scroll", hide, { passive: true });

  // Contents: folded on narrow pages, and the section in view is marked.
  if (innerWidth <= 1020) document.querySelector(".contents details").open = false;
  const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  all("main > section").forEach((section) => watch.observe(section));
  addEventListener("beforeprint", () => all("details").forEach((fold) => { fold.open = true; }));
})();
