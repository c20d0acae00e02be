"""The words that the profanity scanner knows: data, ours. `+` stands for its usual endings.

1: mild, in many a film for children. 2: strong. 3: a slur, or meant to wound. `?`: it is also a
name, an animal or a tool, and counts only where nothing around it says so.
"""

from __future__ import annotations

from typing import Final

ENGLISH: Final = """
1 arse+ arses ass? asses? bastard? bastards? bloody? bollocks boob? boobs? bugger+ crap+ crappy
1 damn+ damned dammit goddamn goddamned goddamnit hell? jackass+ jackasses piss+ pissy prick?
1 pricks? tit? tits titties wanker+ wank+ turd+ douche+ douchebag+ dumbass dumbasses smartass
1 badass screwup crapper
2 fuck+ fucker+ fuckers motherfuck+ motherfucker+ fuckwit+ fuckhead+ fuckface clusterfuck+
2 fuckup+ mindfuck fuk fuking fukn fucken fucc phuck+ phuk wtf stfu gtfo shit+ shitty shite
2 shithead+ shithole+ shitstorm bullshit+ horseshit dipshit+ apeshit batshit shitface+ shitter
2 asshole+ arsehole+ asshat+ asswipe+ bitch? bitches? bitching bitchy cock? cocks? cocksuck+
2 cocksucker+ cockhead dick? dicks? dickhead+ dickface dickwad+ pussy? pussies? cunt+ twat+
2 slut+ slutty whore+ jizz cumshot+ cumming blowjob+ handjob+ rimjob+ jerkoff tosser+ bellend
2 knobhead+ pisshead minge skank+
3 nigger+ nigga+ niggas faggot+ fag? fags? kike+ spic? spics chink? chinks? gook? gooks wetback+
3 coon? raghead+ towelhead+ tranny? trannies retard? retards retarded paki pakis shemale+ dyke?
3 dykes? beaner+ golliwog+ sandnigger+ zipperhead+
"""
OTHERS: Final = """
1 scheisse? scheiss mist? verdammt? arsch depp? merde bordel? chiant? mierda? joder carajo culo?
1 caca?
2 arschloch arschlöcher scheißkerl scheiße scheiß beschissen wichser fotze fotzen hurensohn
2 hurensöhne ficken fick fickt gefickt verfickt schlampe schlampen miststück drecksau putain
2 pute putes salope salopes connard connards connasse enculé enculer enculés enfoiré enfoirés
2 niquer nique ntm couille? couilles puta? putas puto putos gilipollas coño cojones? pendejo
2 pendejos pendeja cabrón cabrones cabrona hijoputa mamón chingar chinga chingada verga? culero
2 pinche?
3 kanake kanaken neger schwuchtel schwuchteln missgeburt untermensch pédé tapette? bougnoule
3 négro maricón maricones sudaca sudacas
"""

ENDINGS: Final = ("", "s", "es", "ed", "er", "ers", "in", "ing", "y")
BETWEEN: Final = """
ass: jenny jack wild | donkey mule foal
asses: donkeys mules wild horses zebras and |
bastard: the william | file sword toadflax operator title
bloody:  | mary sunday nose hands murder battle war stool diarrhea diarrhoea discharge
boob:  | tube job
hell: the in to from of | yeah boy kitchen gate fire valley
prick: pin finger needle skin to | your the my his her test up
pricks:  | the her his
tit: blue great coal marsh willow crested long-tailed tailed bearded | for
bitch: pregnant breeding lactating brood whelping nursing | puppies whelped litter pup
bitches: breeding lactating brood pregnant |
cock: weather gun half ball stop fighting game | a crowed crow crows fight fighting pheasant and
  robin
cocks: the fighting game ball stop | crow crowed and
dick: moby van tom philip uncle spotted andy private clever war ist sehr zu wird wurde nicht so
  | van cheney tracy clark and turpin whittington grayson nixon gephardt durbin dastardly wolf
  dale in ist sind genug
dicks:  | sporting
pussy:  | willow willows cat cats riot foot
pussies: willow |
fag:  | end ends packet break
fags: of packet pack |
spic:  | and n
chink: a the | in of between light
chinks: the | in of between
gook:  | and
coon: maine | cat cats hound rapids dog dogs
tranny: auto manual | fluid swap rebuild oil
retard: fire flame spark to not can may will would could ignition timing | the growth spark
  ignition timing combustion bacterial by fire flame
retards: which that it | the growth combustion fire
dyke: van flood sea magma igneous | road breach wall and swarm swarms
dykes: the flood sea igneous | and were
mist: the a morning sea fine light mountain forest water oil cool | of and from over spray on in
  net rolled hung covered
depp: johnny |
puta:  | madre
verga: giovanni |
tapette: la une |
"""
"""Ambiguous words, and the words before and after them with which they are no profanity."""

COMPANIONS: Final = "you off this that it the up your me him them u all"
"""What is run together with a word where all spaces were lost: `f u c k y o u`."""
