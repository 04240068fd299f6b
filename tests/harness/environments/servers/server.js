// One form and its API in Node, without packages: the page sends itself by script and shows what the API says.
const http = require("node:http");

const PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Parcel</title><h1>Send a parcel</h1>
<form id="parcel">
<p><label>Sender <input name="sender" required></label></p>
<p><label>Country <select name="country" required><option value="">Choose</option>
<option value="be">Belgium</option><option value="no">Norway</option></select></label></p>
<p><label>City <select name="city" required><option value="">Choose a country first</option></select></label></p>
<p><label>Weight in kg <input name="weight" type="number" min="1" max="30" required></label></p>
<p><label><input name="insured" type="checkbox"> Insured</label></p>
<button>Send</button></form><p role="alert" id="said" hidden></p>
<script>
const form = document.querySelector("#parcel"), said = document.querySelector("#said");
form.country.onchange = async () => {
  const cities = await (await fetch("/cities?of=" + form.country.value)).json();
  form.city.replaceChildren(...cities.map((name) => new Option(name, name.toLowerCase())));
};
form.onsubmit = async (event) => {
  event.preventDefault();
  const parcel = { ...Object.fromEntries(new FormData(form)), insured: form.insured.checked };
  const answer = await fetch("/api/parcels", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ parcel }) });
  const { error } = await answer.json();
  said.textContent = error || "Thank you.";
  said.hidden = false;
  if (!error) form.remove();
};
</script>`;
const CITIES = { be: ["Ghent", "Ypres"], no: ["Oslo", "Bergen"] };

http.createServer(async (request, response) => {
  const answer = (status, kind, body) => response.writeHead(status, { "Content-Type": kind }).end(body);
  const json = (status, record) => answer(status, "application/json", JSON.stringify(record));
  const url = new URL(request.url, "http://localhost");
  let body = "";
  for await (const part of request) body += part;
  if (url.pathname === "/cities") return setTimeout(() => json(200, CITIES[url.searchParams.get("of")] ?? []), 150);
  if (url.pathname === "/api/parcels") {
    const { parcel } = JSON.parse(body);
    if (!CITIES[parcel.country]?.some((name) => name.toLowerCase() === parcel.city)) {
      return json(422, { error: "We do not deliver there." });
    }
    return json(201, { id: 1, parcel });
  }
  return url.pathname === "/" ? answer(200, "text/html", PAGE) : answer(404, "text/plain", "none");
}).listen(process.env.PORT, "127.0.0.1");
