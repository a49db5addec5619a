"""Class names of the public data sets, in the order of their category ids."""

from __future__ import annotations

#: Class names in the order of the category ids 1..40.
YTVIS_2019_CLASSES: tuple[str, ...] = tuple(
    "person giant_panda lizard parrot skateboard sedan ape dog snake monkey hand rabbit duck cat"
    " cow fish train horse turtle bear motorbike giraffe leopard fox deer owl surfboard airplane"
    " truck zebra tiger elephant snowboard boat"
    " shark mouse frog eagle earless_seal tennis_racket".split()
)
#: Class names in the order of the category ids 1..40.
YTVIS_2021_CLASSES: tuple[str, ...] = tuple(
    "airplane bear bird boat car cat cow deer dog duck earless_seal elephant fish flying_disc fox"
    " frog giant_panda giraffe horse leopard lizard monkey motorbike mouse parrot person rabbit"
    " shark skateboard snake snowboard squirrel"
    " surfboard tennis_racket tiger train truck turtle whale zebra".split()
)
#: Class names in the order of the category ids 1..25, spelt as in the official files.
OVIS_CLASSES: tuple[str, ...] = tuple(
    "Person Bird Cat Dog Horse Sheep Cow Elephant Bear Zebra Giraffe Poultry Giant_panda Lizard"
    " Parrot Monkey Rabbit"
    " Tiger Fish Turtle Bicycle Motorcycle Airplane Boat Vehical".split()
)
#: Class names of COCO in the order of ``COCO_IDS``.
COCO_CLASSES: tuple[str, ...] = tuple(
    (
        "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, "
        "fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, "
        "elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, "
        "skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, "
        "tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
        "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, "
        "potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, "
        "cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
        "teddy bear, hair drier, toothbrush"
    ).split(", ")
)
#: Category ids of COCO, which have gaps.
COCO_IDS: tuple[int, ...] = tuple(
    i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
)
#: Class names of the segmentation tracking labels of BDD100K, in the order of the ids 1..8.
BDD100K_CLASSES: tuple[str, ...] = tuple(
    "pedestrian rider car truck bus train motorcycle bicycle".split()
)

#: The lists by name; YouTube-VIS 2022 has the classes of 2021.
CLASS_LISTS: dict[str, tuple[str, ...]] = {
    "coco": COCO_CLASSES,
    "ytvis_2019": YTVIS_2019_CLASSES,
    "ytvis_2021": YTVIS_2021_CLASSES,
    "ovis": OVIS_CLASSES,
    "bdd100k": BDD100K_CLASSES,
}
