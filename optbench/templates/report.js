(() => {
  "use strict";
  const REACH = 24;
  const SVG = "http://www.w3.org/2000/svg";
  const byText = new Intl.Collator("en", { numeric: true }).compare;

  document.documentElement.classList.add("js");

  // --- Tables ------------------------------------------------------------------------------------------------------

  function enhanceTable(box) {
    const table = box.querySelector("table");
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...body.rows];
    const search = box.querySelector("input");
    const status = box.querySelector(".status");
    const more = box.querySelector(".more");
    const limit = Number(more?.dataset.shown ?? Infinity);
    let order = rows;
    let isWhole = false;
    let texts = null;

    const textOf = (row) => {
      texts ??= new Map(rows.map((own) => [own, [...own.cells].map((cell) => cell.textContent).join(" ").toLowerCase()]));
      return texts.get(row);
    };

    function show() {
      const words = search ? search.value.toLowerCase().split(/\s+/).filter((word) => word && word !== "-") : [];
      const unwanted = words.filter((word) => word.startsWith("-")).map((word) => word.slice(1));
      const wanted = words.filter((word) => !word.startsWith("-"));
      let count = 0;
      for (const row of order) {
        const fits = !words.length
          || (wanted.every((word) => textOf(row).includes(word)) && !unwanted.some((word) => textOf(row).includes(word)));
        count += fits;
        row.classList.toggle("filtered", !fits);
        row.classList.toggle("beyond", fits && !isWhole && count > limit);
      }
      if (status) status.textContent = words.length ? `${count} of ${rows.length} rows` : `${rows.length} rows`;
      if (more) {
        more.hidden = count <= limit;
        table.parentElement.classList.toggle("tall", isWhole);
        more.textContent = isWhole ? `Show the first ${limit} rows` : `Show all ${count} rows`;
      }
    }

    function keyOf(row, place, isNumber) {
      const cell = row.cells[place];
      const key = cell.dataset.k ?? cell.textContent;
      if (!isNumber) return key.trim() === "" ? null : key;
      return key === "" || Number.isNaN(Number(key)) ? null : Number(key);
    }

    function sort(place) {
      const head = heads[place];
      const before = head.getAttribute("aria-sort");
      const now = before === null ? "ascending" : before === "ascending" ? "descending" : null;
      for (const other of heads) other.removeAttribute("aria-sort");
      order = rows;
      if (now) {
        head.setAttribute("aria-sort", now);
        const isNumber = head.classList.contains("n");
        const sign = now === "ascending" ? 1 : -1;
        const keyed = rows.map((row) => [keyOf(row, place, isNumber), row]);
        keyed.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          return a === b ? 0 : sign * (isNumber ? (a < b ? -1 : 1) : byText(a, b));
        });
        order = keyed.map(([, row]) => row);
      }
      body.append(...order);
      show();
    }

    heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => sort(place)));
    search?.addEventListener("input", show);
    more?.addEventListener("click", () => {
      isWhole = !isWhole;
      show();
    });
    show();
  }

  // --- Pictures ----------------------------------------------------------------------------------------------------

  const tooltip = document.getElementById("tooltip");
  let pointed = null; // the picture that the tooltip speaks of

  function spelt(value) {
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e9) return String(value);
    if (size >= 1e-4 && size < 1e6) return String(Number(value.toPrecision(5)));
    return value.toExponential(3).replace(/\.?0*e\+?/, "e");
  }

  function fraction(value, axis) {
    const [low, high] = axis.limits;
    return axis.scale === "log" ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  }

  /** All points of a series that are within their axes, with their places in the drawing. */
  function placed(series, panels) {
    const found = [];
    panels.forEach((panel, place) => {
      const [left, top, width, height] = panel.box;
      const flat = series.points[place] ?? [];
      for (let i = 0; i < flat.length; i += 2) {
        const right = fraction(flat[i], panel.x);
        const up = fraction(flat[i + 1], panel.y);
        if (right >= -0.001 && right <= 1.001 && up >= -0.001 && up <= 1.001) {
          found.push({ x: flat[i], y: flat[i + 1], left: left + right * width, top: top + (1 - up) * height, panel });
        }
      }
    });
    return found;
  }

  function enhancePicture(figure, data) {
    const drawing = figure.querySelector(".drawing");
    const svg = drawing.querySelector("svg");
    const said = figure.querySelector(".said");
    const buttons = [...figure.querySelectorAll("[data-series]")];
    const points = data.series.map((series) => placed(series, data.panels));
    const isShown = data.series.map(() => true);
    const marker = document.createElementNS(SVG, "circle");
    marker.classList.add("pointed");
    let at = null; // [series, point]

    const scale = () => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;

    function place() {
      const mark = marker.getBoundingClientRect();
      const x = mark.left + mark.width / 2;
      const y = mark.top + mark.height / 2;
      const view = drawing.getBoundingClientRect();
      tooltip.hidden = y < 0 || y > innerHeight || x < view.left - 8 || x > view.right + 8;
      const { width, height } = tooltip.getBoundingClientRect();
      const room = document.documentElement.clientWidth - 8;
      const left = x + 12 + width <= room ? x + 12 : x - 12 - width;
      const above = y - 12 - height;
      tooltip.style.left = `${Math.max(8, Math.min(left, room - width))}px`;
      tooltip.style.top = `${above >= 8 ? above : y + 12}px`;
    }

    function point(series, index, aloud) {
      if (pointed && pointed !== picture) pointed.hide();
      pointed = picture;
      at = [series, index];
      const { label, colour } = data.series[series];
      const found = points[series][index];
      const lines = [["x", found.x], ["y", found.y]].map(([axis, value]) => {
        const name = found.panel[axis].label;
        return name ? `${name}: ${spelt(value)}` : spelt(value);
      });
      const head = document.createElement("strong");
      head.textContent = label;
      tooltip.replaceChildren(head, ...lines.map((line) => {
        const element = document.createElement("div");
        element.textContent = line;
        return element;
      }));
      tooltip.style.borderLeftColor = colour;
      marker.setAttribute("cx", found.left);
      marker.setAttribute("cy", found.top);
      marker.setAttribute("r", 4.5 / scale());
      marker.style.strokeWidth = 2 / scale();
      marker.style.stroke = colour;
      if (!marker.isConnected) svg.append(marker);
      if (aloud) {
        said.textContent = [label, ...lines].join(", ");
        const view = drawing.getBoundingClientRect();
        const x = view.left - drawing.scrollLeft + found.left * scale();
        if (x < view.left + 16 || x > view.right - 16) drawing.scrollLeft += x - (view.left + view.right) / 2;
        const y = view.top + found.top * scale();
        if (y < 48 || y > innerHeight) drawing.scrollIntoView({ block: "center" });
      }
      place();
    }

    function hide() {
      at = null;
      if (pointed === picture) pointed = null;
      marker.remove();
      tooltip.hidden = true;
    }

    const picture = { hide, place, drawing };

    function follow(event) {
      const area = svg.getBoundingClientRect();
      const factor = scale();
      let nearest = null;
      let distance = REACH;
      points.forEach((own, series) => {
        if (!isShown[series]) return;
        own.forEach((found, index) => {
          const away = Math.hypot(
            area.left + found.left * factor - event.clientX, area.top + found.top * factor - event.clientY);
          if (away < distance) [nearest, distance] = [[series, index], away];
        });
      });
      if (!nearest) hide();
      else if (!at || at[0] !== nearest[0] || at[1] !== nearest[1]) point(...nearest, false);
    }

    function show(wanted) {
      wanted.forEach((isWanted, place) => {
        isShown[place] = isWanted;
        buttons[place].setAttribute("aria-pressed", isWanted);
        for (const id of data.series[place].elements) document.getElementById(id)?.classList.toggle("off", !isWanted);
      });
      if (at && !isShown[at[0]]) hide();
    }

    const all = () => show(isShown.map(() => true));

    function alone(place) {
      const isAlone = isShown.every((shown, other) => shown === (other === place));
      if (isAlone) all();
      else show(isShown.map((_, other) => other === place));
    }

    buttons.forEach((button, place) => {
      button.title = "Click: show or hide. Double click, Alt+click or Shift+Enter: this one alone.";
      button.addEventListener("click", (event) => {
        if (event.altKey) alone(place);
        else show(isShown.map((shown, other) => shown !== (other === place)));
      });
      // Two clicks have come before, which undo each other.
      button.addEventListener("dblclick", (event) => event.altKey || alone(place));
      button.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && event.shiftKey) {
          event.preventDefault();
          alone(place);
        }
      });
    });
    figure.querySelector(".all")?.addEventListener("click", all);

    if (!points.some((own) => own.length)) return;
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hide());

    function step(by) {
      const [series, index] = at;
      point(series, Math.max(0, Math.min(points[series].length - 1, index + by)), true);
    }

    function change(by) {
      const [series, index] = at;
      const { left, panel } = points[series][index];
      const others = points.map((_, place) => place).filter((place) => isShown[place] && points[place].length);
      const next = others[(others.indexOf(series) + by + others.length) % others.length];
      const cost = (found) => (found.panel === panel ? 0 : 1e6) + Math.abs(found.left - left);
      point(next, points[next].reduce((best, found, i, own) => (cost(found) < cost(own[best]) ? i : best), 0), true);
    }

    const KEYS = {
      ArrowRight: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => change(1), ArrowUp: () => change(-1),
      Home: () => step(-Infinity), End: () => step(Infinity),
    };
    drawing.tabIndex = 0;
    drawing.setAttribute("role", "application");
    drawing.setAttribute("aria-label",
      `${svg.getAttribute("aria-label")}. Left and right go through the points of a line, up and down to another line.`);
    drawing.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      if (!(event.key in KEYS) || event.altKey || event.ctrlKey || event.metaKey) return undefined;
      const first = points.findIndex((own, series) => isShown[series] && own.length);
      if (first < 0) return undefined;
      event.preventDefault();
      if (at) KEYS[event.key]();
      else point(first, event.key === "End" ? points[first].length - 1 : 0, true);
      return undefined;
    });
    drawing.addEventListener("blur", hide);
  }

  // --- The page ----------------------------------------------------------------------------------------------------

  document.querySelectorAll(".table").forEach(enhanceTable);
  for (const [id, data] of Object.entries(JSON.parse(document.getElementById("data").textContent))) {
    enhancePicture(document.getElementById(id), data);
  }
  addEventListener("scroll", () => pointed?.place(), { capture: true, passive: true });
  addEventListener("resize", () => pointed?.hide());
  addEventListener("pointerdown", (event) => {
    if (pointed && !pointed.drawing.contains(event.target)) pointed.hide();
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((own) => { own.open = true; }));

  const links = [...document.querySelectorAll("nav a")];
  const sections = [...document.querySelectorAll("section")];
  function mark() {
    const current = sections.findLastIndex((section) => section.getBoundingClientRect().top < innerHeight / 3);
    links.forEach((link, place) => {
      if (place === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  }
  let isWaiting = false;
  addEventListener("scroll", () => {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      mark();
    });
  }, { passive: true });
  requestAnimationFrame(mark);
})();
