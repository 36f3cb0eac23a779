"""The words by which the simulator reads a text: moods and topics in several languages. Data only.

Owns the word lists and their notation: terms are separated by commas; `word` matches a whole word,
`word*` the beginning of one, and a term in a script without spaces (Japanese, Chinese, Korean,
Thai) matches anywhere. The lists need not be complete: they make labels plausible for a reader,
they do not understand.
"""

from __future__ import annotations

from collections.abc import Mapping

POSITIVE = """
love*, no perfume, no rash, no red spots, nothing stuck, nothing sticks, no rubbing,
no headache, no pain, back doesn t hurt, stopped complaining, expensive ones, not expensive,
not bad, no problem, no problems, never fails, never late, doesn t leak, without asking,
repaired for free, great, excellent, perfect*, wonderful, brilliant, beautiful*, lovely,
amazing, awesome, best, fantastic, superb, good, nice, nicely, happy, impressed, recommend*,
thank you, thanks, say thanks, helpful, friendly, kind people, respect, sweet, reliable, sturdy,
solid, stable, crispy, juicy, accurate, sharp, bargain, steal, great value, good value,
worth every, worth it, cheapest, better deal, third of the price, half the price, fair price,
reasonable, easy, intuitive, simple, comfortable, soft, warm and, so warm, so light, no sore,
pain is gone, doesn t hurt, no fuss, out of the box, super fast, first try, zero problems,
still waterproof, still new, look new, stayed dry, still glowing, survived, didn t distort,
outlive*, alive, fresh, a day earlier, saved us, saves another, no smell, without a question,
not bitter, for free, full refund, sleep better, every cent, snap in, heirloom, like new,
well made, well packed, well wrapped, next morning, next day, for life, bought a second,
stays where, works by itself, i forget i m, no cost, fast delivery, same day, doesn t slip,
doesn t kink, doesn t wobble, doesn t bleed, doesn t itch, 10 10, 5 stars, five stars,
hervorragend, begeistert, bester, beste, schön*, super, toll, perfekt, stabil, bequem, einfach*,
freundlich*, dank, danke, schnäppchen, hochwertig, lieben, gerne, empfehl*, wieder kaufen,
schneller geht, wie angegossen, zuverlässig, günstig, zufrieden, excellent*, parfait*,
très confortable, recommande, douce, plaisir, bravo, facil*, adore, génial, bon rapport, ravi*,
en deux jours, pas de boutons, maravilla, contento, contenta, excelente*, muy fácil, fácil,
cómodo, cómoda, baratas y buenas, buenas, bueno, buena, gratis, muy bien, encanta,
al día siguiente, ideal, recomiendo, ottim*, consiglio, affare, semplice, intuitivo, onesto,
bello, bellissim*, finalmente, adorei, ótim*, fácil de, muito bom, recomendo,
nada ficou molhado, heerlijk, prima, stevig, goedkoop, fijn, geweldig, geen rugpijn, wygodny,
ciepły, polecam, świetn*, dobry, dobra, sağlam, bayıldı, tavsiye, harika, güzel, отличн*,
очень просто, удобн*, тёпл*, легк*, лёгк*, рекомендую, в восторге, хорош*, прекрасн*, супер,
люблю, нравится, без единой поломки, رائع, رائعة, أنصح, ممتاز*, مريح, مريحة, أفضل, جميل*, جيد,
جيدة, لم أعد أشعر بألم, बढ़िया, आरामदायक, पसंद, अच्छा, अच्छी, वसूल, आसान, शानदार, εξαιρετικ*,
πολύ καλή, συνιστώ, άνετη, τέλει*, καλό, δεν με πονάει, מצוין, ממליץ, מעולה, נהדר, אוהב, 良く,
満足, 美味しい, 簡単, 楽しみ, 最高, 快適, 感謝, 丁寧, 迅速, 痛くない, 素晴らしい, 好き, 気に入,
スーパー, 满意, 很暖和, 舒服, 性价比很高, 便宜, 简单, 方便, 漂亮, 喜欢, 很好, 很清楚, 不错,
推荐, 又好, 也不怕, 좋고, 좋아, 만족, 최고, 저렴, 빨라, 추천, 친절합, ชอบ, ง่าย, คุ้มค่า, ดีมาก,
และดี, ❤️, 😍, 🔥, 👍, 👏, 😎, ✨, 🐱, 😊, ⭐
"""

NEGATIVE = """
bad, terrible, horrible, awful, worst, poor, disgusting, gross, junk, useless, faulty, broken,
broke, break, breaks, failed, fails, died, dead, leak*, loose, crack*, burst, rusted, rust,
peel*, flicker*, hums, stuck, gets stuck, snapped, missing, nightmare, confusing, contradict*,
annoying, shameful, overpriced, expensive, too much, rip off, ripped off, waste, hurt, hurts,
painful, headache, uncomfortable, narrow, blister*, stiff neck, rash, red spots, burned like,
burnt, froze, hard plastic, refuse*, refused, never again, never found, not okay, not covered,
nobody, still explaining, talk to a human, cannot open, i give up, gave up, give up, no reply,
got lost, dented, crushed, bent, late, weeks late, still waiting, waited another,
moved five times, wrong, incomplete, impossible, unreadable, unusable, difficult, complicated,
slippery, disappoint*, smelled of, smell of, tastes of metal, tastes like the inside, sent back,
threw it, crackles, fall out, turned yellow, came off, stopped working, stopped charging,
went dark, down to 20, loses the connection, catches the fabric, first hole, not pay that,
would not pay, a joke, wobbles and, tilted, dangerous, drop* my phone, i could cry, uninstalled,
doesn t react, still can t find, can t find, a fortune, too expensive, refund denied, empty,
sorry for the inconvenience, copy and paste, ripoff, cannot be switched off, nobody can switch,
subscription of, is too much, in three pieces, cut into my, 1 star, one star, katastrophe,
zu hart, unbequem, tut mir der rücken weh, zu spät, aufgerissen, löst sich, schwache, undicht,
nass, zu teuer, unverschämt, bricht, enttäusch*, fehlt, ärgerlich, unverständlich, furchtbar,
schlecht*, kaputt, defekt, schade, nie wieder, schweigen, warte ich, mangelhaft, cassé, déçu*,
ne répond jamais, catastroph*, sous la pluie, trop petit, inconfortable, clignote, mauvais*,
à éviter, trop cher, compliqué*, obligatoire, jamais reçu, raccroché, abîmé, nul, horrible*,
se me caen, duelen, incómod*, pésim*, nadie responde, tarde, quemado, muy malo, mal, malo, mala,
se rompió, oxidada, ruido, no se entienden, faltan, complicado, demasiado cara, cara, roto,
non funziona, pessim*, sbagliat*, scomod*, ritardo, fredda, gratta, rotto, delusion*, atrasou,
péssimo, parou de, nunca responde, à espera, ruim, avisou, ramp, onduidelijk, te weinig, lek,
slechte, kapot, te duur, przestał działać, nie polecam, uszkodzon*, trzy tygodnie, zły, kırıldı,
berbat, ıslandı, kötü, сломал*, ужасн*, не советую, не отвечает, мокрая, порванная,
слишком дорого, не хватает, бледная, разочарован*, плох*, кошмар, полтора месяца, توقفت, سيئة,
سيء, تأخر, مكسور*, غالي, لا ترد, رديء, खराब, फट, बेकार, देरी, टूटा, कोई जवाब नहीं, महंगा, निराश,
χάλασε, απαράδεκτο, άργησε, σπασμένο, κακή, χάλια, לא נוח, קצרים מדי, גרוע, אף אחד לא, יקר,
שבור, 痛くなる, 限界, 最悪, 来ません, 二度と買, 壊れ, 弱く, がっかり, 高すぎ, 臭い, ひどく,
わかりにくい, 遅れ, 潰れ, 置けない, 分かりません, 悪い, 不良, 掉毛, 太差, 很差, 太慢, 没人回复,
破了, 坏了, 失望, 太硬, 腰疼, 不舒服, 太贵, 不如, 很大, 差评, 고장, 실망, 어렵, 복잡, 부족,
불친절, 답변이 없, 별로, 나빠, เสีย, แย่, ช้า, แตก, ผิดหวัง, แพง, 👎, 😡, 😠, 💔
"""

NEUTRAL = """
nothing wrong, nothing special, neither great nor bad, ok, fine, average, decent, acceptable,
drinkable, neither, as described, as expected, about what you would expect, works, fair enough,
true to size, comfortable enough, smaller than, normal, tells the time, does not harm,
i suppose, not so much, good for calls, good picture bad sound, neither love nor hate, my fault,
ganz okay, okay, tut was er soll, nicht mehr nicht weniger, mehr kann ich noch nicht,
kleiner als gedacht, mittelmäßig, correct sans plus, correct, rien à signaler, ni fu ni fa,
es más pequeño, esattamente come, razoável, nada de especial, precies zoals, нормальный,
не хуже и не лучше, обычный, عادي, لا بأس, ठीक, בסדר, 普通, 可もなく, 一般, 差不多, 보통, 그냥,
เฉยๆ
"""

# Topic -> (words that name it in an enum value, terms that betray it in a text).
TOPICS: Mapping[str, tuple[str, str]] = {
    "delivery": (
        "delivery, shipping, shipment, logistics, lieferung, livraison, entrega, доставка, 配送",
        """
        dented, earlier than promised, deliver*, arrived, arrive, shipping, shipped, parcel*,
        courier, tracking, waited another, still waiting, packed, box was crushed,
        in the envelope, incomplete box, roast date, ordered at night, arrived the next day,
        out for delivery, lieferung, geliefert, karton, paket, zustellung, livraison, livreur,
        colis, jamais reçu, pedido llegó, llegó, embalado, pacco, consegna, entrega, paczka,
        levering, kargo, доставк*, посылк*, التوصيل, العلبة, डिलीवरी, παράδοση, κουτί, משלוח,
        届きました, 配送, 梱包, 箱が, 快递, 盒子, 物流, 배송, 도착, ส่งช้า, กล่อง
        """,
    ),
    "price": (
        "price, cost, value, pricing, money, preis, prix, precio, prezzo, цена, 価格, 价格",
        """
        price*, cheap, cheapest, expensive, overpriced, bargain, steal, half the price, value,
        worth every cent, cents, cost a fortune, waste of money, ripped off, rip off,
        subscription of, pay that, i paid, insured, too much, third of the price, for the money,
        60 off, in the sale, better deal, euros, for this, saves another, teuer, preis,
        schnäppchen, ausverkauf, hälfte, günstig, trop cher, prix, soldes, baratas, cara, caro,
        barato, precio, prezzo, affare, goedkoop, duur, tanio, ucuz, дорого, цен*, السعر, غالي,
        कीमत, पैसे, τιμή, מחיר, יקר, 値段, 高すぎ, 半額, 便宜, 太贵, 性价比, 打折, 가격, 가성비,
        저렴, ราคา, คุ้มค่า
        """,
    ),
    "service": (
        "service, support, helpdesk, assistance, kundendienst, atención, servizio, поддержка, 客服",
        """
        support, service, customer care, chatbot, the chat, answers the phone, agent, agents,
        warranty, refund, replacement on, sent me, sent me two, they sent, they swapped,
        helpful, i called, i wrote, wrote to, talk to a human, switching it off,
        automatic reply, repaired for free, friendly woman, return refused, money back,
        exchange, not covered, hand written card, i sent a photo, without asking, kind people,
        very piece, kundendienst, ersatz, am telefon, warteschleife, mein geld, service client,
        service après, atención al cliente, me mandaron, servicio, atendimento, reembolso,
        assistenza, поддержк*, не отвечает, خدمة, सेवा, ग्राहक, שירות, εξυπηρέτηση, サポート,
        問い合わせ, 返事, 客服, 回复, 고객센터, 문의, บริการ
        """,
    ),
    "usability": (
        "usability, ease, use, setup, handling, installation, bedienung, usage, 操作",
        """
        switch*, menus, button, lid, opens with, easy, simple, intuitive, setup, set up,
        assembly, instructions, manual, app wants, pairing, confusing, rule book, complicated,
        driver only, no driver, need an app, an account, no app, one button, buttons,
        touch display, to clean, open the lid, dimming, explained in five minutes,
        out of the box, timer, hang up forget, put together, einrichtung, bedienen, reinigen,
        anleitung, kompliziert, facile à, application, compliqué*, fácil, configurar,
        instrucciones, montarlo, semplice, intuitivo, montage, handleiding, настроить,
        инструкц*, इस्तेमाल, आसान, οδηγίες, הוראות, ボタン, 操作, 説明書, 操作简单, 简单, 清洗,
        설명서, 조립, 사용, ใช้งานง่าย, ทำความสะอาด
        """,
    ),
    "comfort": (
        "comfort, fit, size, ergonomics, komfort, confort, taille, 舒适",
        """
        comfort*, uncomfortable, fits, fit, hurt, hurts, sore, my back, my knees, wrists,
        narrow, blister*, toes, stiff in, armrests, cushion, cut into my, hip belt,
        shoulders for, rubbing, headrest, sleeves, size small, sweating, so warm, too warm,
        froze, slept, strap, rash on my wrist, itch, gums, forget i m wearing,
        handle gets so hot, slippery, headache, rücken weh, unbequem, bequem, sitzen wie,
        confortable, inconfortable, taille beaucoup, manches, duelen, se me caen, incómod*,
        cómod*, calentito, taglia, scomod*, rugpijn, wygodny, ciepły, удобная, тёплая, мёрзну,
        مريح, بألم, आरामदायक, पैर, άνετη, πονάει, לא נוח, קצרים, 耳が痛, 膝が, 快適, 暖和, 舒服,
        腰疼, 太硬, 편안, นุ่ม
        """,
    ),
    "quality": (
        "quality, durability, product, performance, material, qualität, qualité, calidad, 质量",
        """
        quality, burst, snapped, sound, battery, broke, broken, died, dead, leak*, rust*,
        flicker*, sturdy, solid, zip, seams, well made, crack*, coating, peel*, sole,
        light no flicker, waterproof, material, suction, stuck, smell*, tastes, burnt, crema,
        crispy, juicy, bass, connection, stopped working, stopped charging, survived, faulty,
        falls apart, fall out, came off, yellow, scratch, flavour, chocolate, foam, corners,
        stayed, wobble, reliable, the sensor, works, espresso, feathers, ice, metal, pieces,
        crackles, outlive, made, rusted, cold, drinkable, decent, good for calls, kitchen, ink,
        pen, tyres, edges, perfume, burned like, does not harm, qualität, saugt, kaffee, licht,
        sohle, undicht, stabil, verbindung, riecht, teil fehlt, kalt, verarbeitet, tut was,
        qualité, café, fermeture, aspire, clignote, peau, plaisir, calidad, suenan, batería,
        sabe a, se rompió, beber, qualità, non funziona, funcionar, especial, kwaliteit, lek,
        jakość, działać, sağlam, kırıldı, качеств*, кофе, сломал*, не хватает, الصوت, جودة, طعم,
        توقفت, क्वालिटी, फट, खराब, ποιότητα, χάλασε, καφές, סוללה, הסוללה, איכות, 音質, 壊れ,
        吸引, 臭い, 紙, 質, 普通です, 质量, 电池, 坏了, 掉毛, 漂亮, 음질, 고장, 배터리, คุณภาพ,
        เสีย
        """,
    ),
}

# Orders of urgency: named in an enum from the mildest to the strongest.
URGENCY = ("lowest", "low", "minor", "normal", "medium", "major", "high", "urgent", "critical")

POSITIVE_NAMES = frozenset(
    {
        "positive",
        "pos",
        "good",
        "happy",
        "satisfied",
        "positiv",
        "positif",
        "positivo",
        "ポジティブ",
    }
)
NEGATIVE_NAMES = frozenset(
    {"negative", "neg", "bad", "unhappy", "dissatisfied", "negativ", "négatif", "negativo"}
)
NEUTRAL_NAMES = frozenset({"neutral", "mixed", "neutre", "neutro", "average", "medium"})
FALLBACK_NAMES = frozenset(
    {
        "other",
        "others",
        "general",
        "unknown",
        "none",
        "misc",
        "sonstiges",
        "autre",
        "otro",
        "neutral",
    }
)
