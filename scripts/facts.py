"""Writes `data/facts.jsonl`: questions on plain facts, with a reason before the letter.

    python scripts/facts.py

A model that was not tuned to instructions does not connect a letter with what it knows. These rows
show it how: say what is so, then which letter that is. Each fact is asked several times, with other
wrong answers in another order. Profile `small` warms up on them; all of them were written here.
"""

import pathlib
import random

from tasks import write_rows

ROWS = pathlib.Path(__file__).resolve().parent.parent / "data" / "facts.jsonl"
TIMES = 6  # each fact
ENDS = ("so {letter}", "so it is {answer}, which is {letter}", "and that is {letter}")

# question | answer | wrong answers | reason
FACTS = """
Which animal can fly?|an eagle|a horse;a crab;a snake;a frog;a goat|an eagle has wings that lift it into the air
Which animal lays eggs?|a hen|a dog;a cow;a horse;a whale;a mouse|a hen is a bird, and birds lay eggs
Which of these is a mammal?|a whale|a shark;a lizard;a salmon;a parrot;a spider|a whale breathes air and feeds its young with milk
What do plants need from the air to make food?|carbon dioxide|oxygen;nitrogen;helium;smoke;dust|plants take in carbon dioxide and turn it into sugar with the energy of light
Which part of a plant takes up water from the soil?|the roots|the leaves;the petals;the seeds;the fruit|roots grow in the soil and draw water out of it
What gives the Earth light and heat?|the Sun|the Moon;the clouds;the ocean;the wind|the Sun is a star that sends out light and heat
Which planet is closest to the Sun?|Mercury|Mars;Jupiter;Earth;Saturn;Neptune|Mercury has the smallest orbit around the Sun
How long does the Earth take to go around the Sun?|one year|one day;one week;one month;ten years|the Earth goes around the Sun once in a year
Why do we have day and night?|the Earth turns on its axis|the Sun goes out;the Moon covers the Sun;clouds block the light|as the Earth turns, each side faces the Sun and then turns away
At what temperature does water freeze?|0 degrees Celsius|20 degrees Celsius;50 degrees Celsius;100 degrees Celsius|water becomes ice at 0 degrees Celsius
What does water become when it boils?|steam|ice;snow;sand;oil|boiling turns liquid water into a gas, which is steam
Which of these is a solid?|a stone|milk;air;steam;juice|a stone keeps its own shape, as solids do
Which of these is a liquid at room temperature?|milk|wood;iron;oxygen;glass|milk flows and takes the shape of its glass
Which material is attracted by a magnet?|iron|wood;glass;paper;rubber;plastic|magnets attract iron
Which material lets electricity through best?|copper|rubber;wood;glass;plastic;cotton|copper is a metal, and metals conduct electricity
Which tool measures temperature?|a thermometer|a ruler;a clock;a scale;a compass|a thermometer shows how hot or cold something is
Which tool measures mass?|a balance|a thermometer;a ruler;a stopwatch;a compass|a balance compares the mass of things
Which tool makes tiny things look larger?|a microscope|a telescope;a barometer;a magnet;a funnel|a microscope enlarges what is too small to be seen
Which organ pumps blood?|the heart|the stomach;the lungs;the brain;the skin|the heart pushes blood through the body
Which organ is used to breathe?|the lungs|the heart;the liver;the stomach;the kidneys|the lungs take in oxygen from the air
Which organ thinks and controls the body?|the brain|the heart;the stomach;the liver;the bones|the brain sends orders through the nerves
What is the job of the skeleton?|to support the body|to digest food;to pump blood;to carry messages|bones hold the body up and give it shape
Which force pulls things towards the ground?|gravity|friction;magnetism;heat;light|gravity pulls everything towards the centre of the Earth
Which force slows down a sliding box?|friction|gravity;magnetism;light;sound|friction acts between the box and the floor
Which energy does a moving car have?|kinetic energy|solar energy;nuclear energy;sound energy|kinetic energy is the energy of motion
What kind of energy is stored in food?|chemical energy|light energy;sound energy;kinetic energy|food stores energy in its chemical bonds
Which source of energy is renewable?|wind|coal;oil;natural gas;gasoline|wind keeps blowing and is not used up
Which of these is a fossil fuel?|coal|wind;sunlight;water;wood|coal was made from plants that died millions of years ago
What makes a shadow?|light that is blocked|sound that is loud;water that flows;air that is warm|an object that blocks light leaves a dark place behind it
What travels fastest?|light|sound;a jet;a rocket;the wind|nothing is faster than light
How does sound travel?|as waves|as light;as heat;as drops of water|sound is a wave that moves through air or another material
Which animal eats only plants?|a cow|a lion;a wolf;an owl;a shark|a cow is a herbivore and eats grass
Which animal is a predator?|a wolf|a rabbit;a deer;a sheep;a cow|a wolf hunts other animals
What does a producer in a food chain do?|it makes its own food|it eats animals;it eats dead things;it hunts at night|producers such as plants make food from sunlight
What breaks down dead plants?|fungi|wolves;hawks;rabbits;trees|fungi are decomposers
Where does a fish get its oxygen?|from the water through its gills|from its food;from the sand;through its bones|gills take oxygen out of the water
Which trait does a child inherit?|eye color|a scar;a haircut;a language;a broken arm|eye color is passed on by genes
Which behaviour is learned?|reading a book|blinking;breathing;sneezing;digesting food|reading has to be taught
How does a thick fur help a bear?|it keeps the bear warm|it helps the bear swim fast;it makes food;it helps the bear see|fur holds warm air near the body
Why do some birds fly south in winter?|to find food and warmth|to sleep;to get away from the Sun;to lose their feathers|in the cold there is little food, so birds migrate
What causes the tides of the ocean?|the pull of the Moon|the wind;the fish;the clouds;the rivers|the gravity of the Moon pulls on the water
What is the Moon?|a satellite of the Earth|a star;a planet;a comet;a cloud|the Moon goes around the Earth
What causes the seasons?|the tilt of the Earth's axis|the size of the Moon;the shape of clouds;the salt of the sea|the tilt turns each half towards the Sun for part of the year
Which cloud and weather go together with lightning?|a thunderstorm|a drought;a fog;a calm day|lightning is made in thunderstorms
What is rain made of?|drops of water|grains of sand;drops of oil;bits of ice only|water vapour cools into drops that fall
What can wear away rock over time?|flowing water|moonlight;radio waves;silence|water carries bits of rock away, which is erosion
How is soil made?|rocks break into small pieces|the Sun melts ice;plants make wind;rain turns to salt|weathering breaks rock into small pieces over a long time
What comes out of a volcano?|lava|snow;sea water;wood;honey|hot melted rock flows out as lava
What shakes the ground?|an earthquake|a rainbow;a tide;an eclipse|an earthquake happens when rock moves under the ground
What tells us about animals that lived long ago?|fossils|clouds;tides;batteries;magnets|fossils are what is left of living things in rock
Which step comes first in a scientific study?|asking a question|drawing a conclusion;writing the report;sharing the result|a study begins with a question
Why does a scientist repeat an experiment?|to see if the result is the same|to use up the material;to make it longer;to change the question|repeating shows whether a result can be trusted
Which change is a chemical change?|wood burning|ice melting;paper tearing;glass breaking;water boiling|burning makes new substances
Which change is a physical change?|ice melting|wood burning;iron rusting;milk going sour|melted ice is still water
What is the smallest unit of life?|a cell|an organ;a bone;a leaf;a tissue|all living things are made of cells
Which part of an atom has a negative charge?|the electron|the proton;the neutron;the nucleus|electrons carry negative charge
Which gas do we breathe in to live?|oxygen|helium;carbon monoxide;neon|the body needs oxygen
Which of these is a good insulator of heat?|wool|copper;iron;silver;aluminum|wool holds air and lets little heat through
Which object makes its own light?|a star|a mirror;the Moon;a window;a planet|a star shines, the others only reflect
What does a battery do in a circuit?|it gives energy|it cools the wire;it makes sound;it blocks the light|a battery pushes the current through the circuit
Which of these wastes the least water?|a short shower|a long bath;a dripping tap;washing a car every day|a short shower uses little water
What is recycled when paper is used again?|wood fibers|metal;plastic;oil|paper is made from wood
Which simple machine is a ramp?|an inclined plane|a pulley;a lever;a wheel|a ramp is a slope, which is an inclined plane
What happens to most metals when they are heated?|they expand|they vanish;they turn to wood;they become colder|heat makes the particles move apart
Which sense uses the nose?|smell|sight;hearing;touch|the nose picks up smells
What protects the body from germs?|the immune system|the skeleton;the hair;the teeth|the immune system fights germs
How do bees help flowers?|they carry pollen|they eat the roots;they drink the soil;they block the Sun|bees move pollen from flower to flower
What does an animal need to live?|food and water|a name;a cage;electric light|without food and water an animal dies
Which habitat fits a cactus?|a desert|a swamp;an ocean;a rain forest|a cactus stores water and can live where it is dry
"""


def rows(seed: int = 0) -> list[dict[str, object]]:
    """All facts as lines of ``data/*.jsonl``: the fields of ``prompts.Example``."""
    rng, found = random.Random(seed), []
    for line in FACTS.strip().splitlines():
        question, answer, wrong, reason = line.split("|")
        for _ in range(TIMES):
            choices = [answer, *rng.sample(wrong.split(";"), 3)]
            rng.shuffle(choices)
            letter = "ABCD"[choices.index(answer)]
            listed = "\n".join(f"{x}) {c}" for x, c in zip("ABCD", choices, strict=True))
            end = rng.choice(ENDS).format(letter=letter, answer=answer)
            found.append({
                "question": f"{question}\n{listed}", "answer": letter,
                "trace": f"{reason[0].upper()}{reason[1:]}, {end}.",
                "domain": "science", "checker": "choice", "choices": choices, "tests": [],
                "difficulty": 0.2, "source": "facts/reason",
            })  # fmt: skip
    rng.shuffle(found)
    return found


if __name__ == "__main__":
    write_rows(ROWS, rows())
