// A form in React with controlled fields and a list of rows, which sends a nested record; built with esbuild.
import { useState } from "react";
import { createRoot } from "react-dom/client";

const EMPTY = { name: "", room: "", nights: "1", breakfast: false };

function Booking() {
  const [booking, setBooking] = useState(EMPTY);
  const [guests, setGuests] = useState([]);
  const [state, setState] = useState("open");
  const change = (key, read = (event) => event.target.value) => (event) =>
    setBooking({ ...booking, [key]: read(event) });
  const isReady = booking.name && booking.room;

  async function send(event) {
    event.preventDefault();
    setState("busy");
    const { name, ...stay } = booking;
    const body = JSON.stringify({ contact: { name }, stay, guests });
    const answer = await fetch("/bookings", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    setState(answer.ok ? "taken" : "open");
  }

  if (state === "taken") return <h1>Thank you.</h1>;
  return (
    <form onSubmit={send}>
      <h1>Book a room</h1>
      <p><label>Name <input name="name" value={booking.name} onChange={change("name")} /></label></p>
      <p><label>Room <select name="room" value={booking.room} onChange={change("room")}>
        <option value="">Choose</option><option value="s">Single</option><option value="d">Double</option>
      </select></label></p>
      <p><label>Nights <input name="nights" type="number" min="1" max="9" value={booking.nights}
        onChange={change("nights")} /></label></p>
      <p><label><input name="breakfast" type="checkbox" checked={booking.breakfast}
        onChange={change("breakfast", (event) => event.target.checked)} /> Breakfast</label></p>
      {guests.map((guest, at) => (
        <p key={at}><label>Guest {at + 1} <input name={`guest${at + 1}`} value={guest}
          onChange={(event) => setGuests(guests.with(at, event.target.value))} /></label></p>
      ))}
      {guests.length === 0 && <button type="button" onClick={() => setGuests([""])}>Add a guest</button>}
      <button disabled={!isReady || state === "busy"}>Book</button>
    </form>
  );
}

createRoot(document.querySelector("#app")).render(<Booking />);
